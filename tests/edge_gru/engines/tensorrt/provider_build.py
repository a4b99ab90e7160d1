"""What the engine runs to build a plan apart, with doubles in it: provider_build.py HOW PLACE."""

from __future__ import annotations

import sys
import time

from fake_providers import fake_providers

from edge_gru.engines import onnxruntime_build

if __name__ == "__main__":
    how = sys.argv.pop(1)
    with fake_providers() as providers:
        if how == "fails":
            providers.error = RuntimeError("no kernel for this GPU\nat node 7")
        if how == "hangs":
            time.sleep(600)
        if how == "crashes":
            sys.exit(7)
        code = onnxruntime_build.main()
        sys.exit(99 if providers.faults else code)
