"""A stub of PyTorch: TorchServe's worker imports it to tell whether an answer is a tensor, and the model of this story makes none."""


class Tensor:
    pass
