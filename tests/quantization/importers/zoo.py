"""Torch modules as people write them: those that are streams, and those that are not."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import nn

N_IN = 6


class Everything(nn.Module):
    """Normalisation buffers, encoder, two layers, batch norm over features, softmax."""

    def __init__(self):
        super().__init__()
        self.encoder, self.norm = nn.Linear(N_IN, 12), nn.LayerNorm(12)
        self.gru = nn.GRU(12, 8, num_layers=2, batch_first=True, dropout=0.5)
        self.bn, self.head = nn.BatchNorm1d(8), nn.Linear(8, 3)
        self.register_buffer("mean", torch.randn(N_IN))
        self.register_buffer("scale", torch.rand(N_IN) + 0.5)
        self.bn.running_mean.normal_()
        self.bn.running_var.uniform_(0.5, 2)

    def forward(self, x, h=None):
        x = F.gelu(self.norm(self.encoder((x - self.mean) / self.scale)))
        y, h = self.gru(x, h)
        y = self.bn(y.transpose(1, 2)).transpose(1, 2)
        return torch.softmax(self.head(y), -1), h


class Head(nn.Module):
    """A batch-first GRU and a linear layer; subclasses choose what the head sees."""

    def __init__(self):
        super().__init__()
        self.gru, self.head = nn.GRU(N_IN, 8, batch_first=True), nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.gru(x)[0])


class LastStep(Head):
    def forward(self, x):
        return self.head(self.gru(x)[0][:, -1])


class LastState(nn.Module):
    """Time first, explicit zero start, the top layer's last state."""

    def __init__(self):
        super().__init__()
        self.gru, self.head = nn.GRU(N_IN, 8, num_layers=2), nn.Linear(8, 3)

    def forward(self, x):
        _, h = self.gru(x, torch.zeros(2, x.shape[1], 8))
        return self.head(torch.relu(h[-1]))


class StateRequired(Head):
    def forward(self, x, h):
        y, h = self.gru(x, h)
        return self.head(y), h


class Skip(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(N_IN, N_IN, batch_first=True)
        self.top = nn.Sequential(nn.Linear(N_IN, N_IN), nn.SiLU(), nn.Dropout(0.5))

    def forward(self, x):
        return self.top(self.gru(x)[0]) + x


class FeatureConv(nn.Module):
    """A convolution over the features of one step: outside the closed set."""

    def __init__(self):
        super().__init__()
        self.conv, self.gru = nn.Conv1d(1, 2, 3, padding=1), nn.GRU(2 * N_IN, 4, batch_first=True)

    def forward(self, x):
        b, t, n = x.shape
        z = torch.relu(self.conv(x.reshape(b * t, 1, n))).reshape(b, t, -1)
        return self.gru(z)[0]


class TwoModules(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.GRU(N_IN, 5, batch_first=True), nn.GRU(5, 4, batch_first=True)
        self.head = nn.Linear(9, 2)

    def forward(self, x):
        y, _ = self.a(x)
        z, _ = self.b(torch.tanh(y))
        return self.head(torch.cat([y, z], -1))


class ReorderedFeatures(Head):
    def forward(self, x):
        return super().forward(x[..., [3, 1, 5, 0, 4, 2]])


class MeanPool(Head):
    def forward(self, x):
        return self.head(self.gru(x)[0].mean(1))


class FirstStep(Head):
    def forward(self, x):
        return self.head(self.gru(x)[0][:, 0])


class Attention(Head):
    def forward(self, x):
        y = self.gru(x)[0]
        return (torch.softmax(self.head(y)[..., :1], 1) * y).sum(1)


class Flipped(Head):
    def forward(self, x):
        return super().forward(x.flip(1))


class TimeConv(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.gru = nn.Conv1d(N_IN, 8, 3, padding=1), nn.GRU(8, 4, batch_first=True)

    def forward(self, x):
        return self.gru(self.conv(x.transpose(1, 2)).transpose(1, 2))[0]


class LearnedStart(Head):
    def __init__(self):
        super().__init__()
        self.start = nn.Parameter(torch.full((1, 1, 8), 0.3))

    def forward(self, x):
        return self.gru(x, self.start.expand(-1, x.shape[0], -1).contiguous())[0]


class StartFromX(Head):
    def __init__(self):
        super().__init__()
        self.start = nn.Linear(N_IN, 8)

    def forward(self, x):
        return self.gru(x, self.start(x[:, 0])[None])[0]


class Packed(Head):
    def forward(self, x):
        lengths = torch.full((x.shape[0],), x.shape[1])
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True)
        return nn.utils.rnn.pad_packed_sequence(self.gru(packed)[0], batch_first=True)[0]


class Stepwise(nn.Module):
    """Two layers of cells in a loop over time, as people write them."""

    def __init__(self, cell: type[nn.RNNCellBase]):
        super().__init__()
        self.below, self.above, self.head = cell(N_IN, 7), cell(7, 5, bias=False), nn.Linear(5, 2)

    def forward(self, x):
        lower = upper = None
        rows = []
        for t in range(x.shape[1]):
            lower = self.below(x[:, t], lower)
            upper = self.above(torch.relu(h_of(lower)), upper)
            rows.append(self.head(h_of(upper)))
        return torch.stack(rows, 1)


def h_of(state):
    return state[0] if isinstance(state, tuple) else state


class LearnedLstmStart(nn.Module):
    """A start for each layer, beyond [-1, 1]."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(N_IN, 6, 2, batch_first=True)
        self.h, self.c = (nn.Parameter(2 * torch.randn(2, 1, 6)) for _ in range(2))

    def forward(self, x):
        start = tuple(s.expand(-1, x.shape[0], -1).contiguous() for s in (self.h, self.c))
        return self.lstm(x, start)[0]


class LstmState(nn.Module):
    """The state goes in and out as a pair."""

    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(N_IN, 8, 2), nn.Linear(8, 3)

    def forward(self, x, state):
        y, state = self.lstm(x, state)
        return self.head(y), state


class LstmStatesApart(LstmState):
    def forward(self, x, h, c):
        y, (h, c) = self.lstm(x, (h, c))
        return self.head(y), h, c


class AcrossChannels(nn.Module):
    """Both ways over the channels of one sample, then over time."""

    def __init__(self):
        super().__init__()
        self.across = nn.LSTM(1, 2, batch_first=True, bidirectional=True)
        self.gru = nn.GRU(4 * N_IN, 5, batch_first=True)

    def forward(self, x):
        b, t, n = x.shape
        y = self.across(x.reshape(b * t, n, 1))[0]
        return self.gru(y.reshape(b, t, -1))[0]


class Dictionary(Head):
    def forward(self, x):
        return {"y": super().forward(x)}


class ThreeInputs(Head):
    def forward(self, x, h, mask):
        return super().forward(x * mask)


STREAMS: dict[str, Callable[[], nn.Module]] = {
    "bare": lambda: nn.GRU(N_IN, 8, batch_first=True),
    "bare_time_first_3_layers": lambda: nn.GRU(N_IN, 8, num_layers=3),
    "bare_no_bias": lambda: nn.GRU(N_IN, 8, bias=False),
    "everything": Everything,
    "head": Head,
    "last_step": LastStep,
    "last_state": LastState,
    "state_required": StateRequired,
    "skip": Skip,
    "feature_conv": FeatureConv,
    "two_modules": TwoModules,
    "reordered_features": ReorderedFeatures,
    "lstm_2_layers": lambda: nn.LSTM(N_IN, 8, 2, batch_first=True),
    "lstm_projected": lambda: nn.LSTM(N_IN, 8, 2, proj_size=3, bias=False),
    "rnn_tanh": lambda: nn.RNN(N_IN, 8, 2),
    "rnn_relu": lambda: nn.RNN(N_IN, 8, nonlinearity="relu", batch_first=True),
    "gru_cells": lambda: Stepwise(nn.GRUCell),
    "lstm_cells": lambda: Stepwise(nn.LSTMCell),
    "rnn_cells": lambda: Stepwise(nn.RNNCell),
    "learned_start": LearnedStart,
    "across_channels": AcrossChannels,
    "learned_lstm_start": LearnedLstmStart,
    "lstm_state": LstmState,
    "lstm_states_apart": LstmStatesApart,
}


class OfNothing(nn.Module):
    """A second GRU that reads the same at every step."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(N_IN, 8, batch_first=True)
        self.other = nn.GRU(N_IN, 8, batch_first=True)

    def forward(self, x):
        same, _ = self.other(torch.ones_like(x) * 0.3)
        return self.gru(x)[0] + same


NO_STREAMS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "a cell of nothing": (OfNothing, "reads the same at every step, nothing of x"),
    "bidirectional": (lambda: nn.GRU(N_IN, 8, bidirectional=True), "is bidirectional"),
    "mean_pool": (MeanPool, r"ReduceMean .* pools over an axis of one step"),
    "first_step": (FirstStep, "the first step"),
    "attention": (Attention, r"ReduceSum .* pools over"),
    "flipped": (Flipped, "backwards"),
    "time_conv": (TimeConv, r"Conv .* kernel longer than one step"),
    "start_from_x": (StartFromX, r"nn.GRU \(call 0\) starts from a state computed from x"),
    "no_memory": (lambda: nn.Linear(N_IN, 3), "expected x to reach an nn.GRU, nn.LSTM, nn.RNN or"),
    "packed": (Packed, "reads packed sequences"),
    "dictionary": (Dictionary, "got dict"),
    "three_inputs": (ThreeInputs, r"forward\(x, h, mask\) does not run"),
}
