"""Parse and build step graphs with the tensorrt that is importable here; one JSON line each.

Standard input has one JSON line a graph: its path, and the smallest, usual and largest batch.
"""

import json
import re
import sys

import tensorrt as trt

LAYER = re.compile(r"^Name: (?P<name>[^,]+), LayerType: (?P<kind>\w+), (?P<rest>.*)$", re.M)
OPERANDS = re.compile(r"^Inputs: \[(?P<inputs>.*?)\](?:, Constants|, Outputs)")
TYPE = re.compile(r"Datatype: (\w+)")
ONNX_NODE = re.compile(r"\[ONNX Layer: ([^\]]+)\]")


class Log(trt.ILogger):
    """Keeps all messages; TensorRT has one logger a process."""

    def __init__(self):
        trt.ILogger.__init__(self)
        self.messages = []

    def log(self, severity, msg):
        self.messages.append((severity, msg))

    def errors(self):
        return [msg for severity, msg in self.messages if severity <= trt.ILogger.ERROR]

    def layers(self):
        listings = [msg for _, msg in self.messages if msg.startswith("Layers:")]
        return [_layer(match) for match in LAYER.finditer(listings[-1] if listings else "")]


def _layer(match):
    rest = match["rest"]
    operands = OPERANDS.match(rest)
    types = TYPE.findall(operands["inputs"]) if operands else []
    return {
        "kind": match["kind"],
        "inputs": types,
        "nodes": ONNX_NODE.findall(rest),
    }


def build(path, batch, log):
    """Return what became of a graph: the layers of its engine, or why there is none."""
    log.messages.clear()
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    if not parser.parse_from_file(path):
        error = parser.get_error(0)
        said = " ".join(error.desc().split())
        return {"error": f"{error.node_operator()} {error.node_name()}: {said}"}
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    profile = builder.create_optimization_profile()
    for k in range(network.num_inputs):
        tensor = network.get_input(k)
        if tensor.shape[0] == -1:
            profile.set_shape(tensor.name, *((n, *list(tensor.shape)[1:]) for n in batch))
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        return {"error": (log.errors() or ["no plan"])[0]}
    return {"error": "", "layers": log.layers()}


def main():
    log = Log()
    for line in sys.stdin:
        path, batch = json.loads(line)
        sys.stdout.write(json.dumps(build(path, batch, log)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
