"""The networks of the benchmark in PyTorch: the same protocol as the other processes."""

import json
import sys
import time

import torch
import torch.nn.functional as F

CASE, THREADS, BATCH = json.loads(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
BITS = CASE["bits"]
torch.set_num_threads(THREADS)
torch.manual_seed(1)


def fake_quant(x, step, low, high, sharing):
    """LSQ: gradients to x where the rounded value is on the grid, to the step everywhere."""
    factor = 1.0 / (sharing * high) ** 0.5
    step = step * factor + (step - step * factor).detach()
    scaled = x / step
    rounded = scaled.detach().clamp(low - 1, high + 1).round()
    integer = rounded.clamp(low, high)
    kept = scaled * (integer == rounded)
    return (kept + (integer - kept).detach()) * step


class Quantizer(torch.nn.Module):
    """The expectation over the bit options."""

    def __init__(self, signed, channels=None, deviation=1.25):
        super().__init__()
        self.grids = [(-(2 ** (b - 1)), 2 ** (b - 1) - 1) if signed else (0, 2**b - 1) for b in BITS]
        shape = [channels or 1]
        firsts = [2 * deviation / high for _, high in self.grids]
        self.steps = torch.nn.ParameterList([torch.full(shape, first) for first in firsts])
        n = len(BITS)
        self.p = torch.nn.Parameter(torch.full([n], 1.0 / n)) if n > 1 else None
        self.weights = channels is not None

    def forward(self, x):
        total = None
        for i, ((low, high), step) in enumerate(zip(self.grids, self.steps)):
            sharing = x.numel() / (x.shape[0] if not self.weights else step.numel())
            step = step.reshape([-1] + [1] * (x.dim() - 1)) if self.weights else step
            q = fake_quant(x, step, low, high, sharing)
            q = q if self.p is None else q * self.p[i]
            total = q if total is None else total + q
        return total


class Block(torch.nn.Module):
    """Convolution, normalization, activation, quantizer."""

    def __init__(self, c, oc, k, stride, depthwise=False, relu=True):
        super().__init__()
        self.k, self.stride, self.relu, self.groups = k, stride, relu, c if depthwise else 1
        shape = [c, 1, k, k] if depthwise else [oc, c, k, k]
        deviation = (2.0 / (shape[1] * k * k)) ** 0.5
        self.weight = torch.nn.Parameter(torch.randn(shape) * deviation)
        self.norm = torch.nn.BatchNorm2d(oc)
        self.weights = Quantizer(True, oc, deviation) if BITS else None
        self.maps = Quantizer(not relu) if BITS else None

    def forward(self, x):
        total = [max((-(-s // self.stride) - 1) * self.stride + self.k - s, 0) for s in x.shape[2:]]
        (th, tw), weight = total, self.weight
        weight = self.weights(weight) if self.weights else weight
        if th % 2 == 0 and tw % 2 == 0:
            x = F.conv2d(x, weight, None, self.stride, (th // 2, tw // 2), 1, self.groups)
        else:
            x = F.pad(x, (tw // 2, tw - tw // 2, th // 2, th - th // 2))
            x = F.conv2d(x, weight, None, self.stride, 0, 1, self.groups)
        x = self.norm(x)
        x = x.relu() if self.relu else x
        return self.maps(x) if self.maps else x


class Residual(torch.nn.Module):
    def __init__(self, main, skip, relu):
        super().__init__()
        self.main, self.skip, self.relu = main, skip, relu
        self.maps = Quantizer(not relu) if BITS else None

    def forward(self, x):
        x = self.main(x) + self.skip(x)
        x = x.relu() if self.relu else x
        return self.maps(x) if self.maps else x


class Head(torch.nn.Module):
    def __init__(self, c):
        super().__init__()
        deviation = (2.0 / c) ** 0.5
        self.weight = torch.nn.Parameter(torch.randn([10, c]) * deviation)
        self.bias = torch.nn.Parameter(torch.zeros(10))
        self.weights = Quantizer(True, 10, deviation) if BITS else None

    def forward(self, x):
        weight = self.weights(self.weight) if self.weights else self.weight
        return F.linear(x.mean((2, 3)), weight, self.bias)


def inverted(c, oc, expand, stride):
    wide = c * expand
    parts = [Block(c, wide, 1, 1)] if expand > 1 else []
    parts += [Block(wide, wide, 3, stride, depthwise=True), Block(wide, oc, 1, 1, relu=False)]
    main = torch.nn.Sequential(*parts)
    same = stride == 1 and c == oc
    return Residual(main, torch.nn.Identity(), False) if same else main


def resnet8():
    layers, c = [Block(3, 16, 3, 1)], 16
    for oc, stride in [(16, 1), (32, 2), (64, 2)]:
        main = torch.nn.Sequential(Block(c, oc, 3, stride), Block(oc, oc, 3, 1, relu=False))
        skip = Block(c, oc, 1, stride, relu=False) if stride > 1 else torch.nn.Identity()
        layers.append(Residual(main, skip, True))
        c = oc
    return torch.nn.Sequential(*layers, Head(c))


def mobile():
    layers, c = [Block(3, 24, 3, 1)], 24
    blocks = [(24, 1, 1), (32, 4, 2), (32, 4, 1), (64, 4, 2), (64, 4, 1), (64, 4, 1), (96, 4, 2)]
    for oc, expand, stride in blocks + [(96, 4, 1)]:
        layers.append(inverted(c, oc, expand, stride))
        c = oc
    return torch.nn.Sequential(*layers, Block(c, 256, 1, 1), Head(256))


net = {"Resnet8": resnet8, "Mobile": mobile}[CASE["model"]]()
images, labels = torch.rand(BATCH, 3, 32, 32), torch.randint(10, [BATCH])
optimizer = torch.optim.SGD(net.parameters(), 0.01, momentum=0.9, weight_decay=1e-4)
for line in sys.stdin:
    start = time.perf_counter()
    optimizer.zero_grad()
    F.cross_entropy(net(images), labels, label_smoothing=0.1).backward()
    optimizer.step()
    print(time.perf_counter() - start, flush=True)
