"""Onto a board: one staging tree, and four ways that it gets there."""

from edge_gru.shipping.board import Board, Facts
from edge_gru.shipping.cargo import Cargo
from edge_gru.shipping.container import write_context
from edge_gru.shipping.deb import write_deb
from edge_gru.shipping.gates import Gate, refuse
from edge_gru.shipping.l4t import LinuxForTegra
from edge_gru.shipping.settings import read_deploy_settings
from edge_gru.shipping.source import Source
from edge_gru.shipping.ssh import Connection
from edge_gru.shipping.stage import Stage
from edge_gru.shipping.target import Target, python_of_l4t
from edge_gru.shipping.tree import Tree
from edge_gru.shipping.workshop import Workshop

__all__ = [
    "Board",
    "Cargo",
    "Connection",
    "Facts",
    "Gate",
    "LinuxForTegra",
    "Source",
    "Stage",
    "Target",
    "Tree",
    "Workshop",
    "python_of_l4t",
    "read_deploy_settings",
    "refuse",
    "write_context",
    "write_deb",
]
