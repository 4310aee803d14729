"""The pocket models: corpus generators and training."""
