"""What is asked: the study file, what follows from it, the trials that it plans, what it will cost."""
