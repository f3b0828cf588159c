"""Is the training code sound on these data? Every check goes through the parts that train and predict, not copies.

Sources: Karpathy's "most common neural net mistakes" (2018) and "A Recipe for Training Neural Networks" (2019),
Falcon's "7 Tips For Squeezing Maximum Performance From PyTorch" (2020).
"""
