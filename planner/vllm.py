"""vLLM: its OpenAI-compatible server, on GPUs and (its CPU build) without."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from planner import flags
from planner.engines import Rendered, Start
from planner.problems import Problems

_PORT = 8000
_STOP_GRACE = 120

# Flags that come from elsewhere in the plan, with what to write instead.
_OURS_ALONE = {
    "api-key": "remove it: clients' keys are checked by the gateway, and a flag shows in the process list",
    "config": "remove it and write the settings under engine_args",
    "data-parallel-size": "remove it: several replicas of one model are not in this release",
    "device-ids": "set the model's `gpus`",
    "headless": "remove it: one model over several hosts is not in this release",
    "host": "set redoubt_private_address",
    "master-addr": "remove it: one model over several hosts is not in this release",
    "max-model-len": "set the model's `context`",
    "max-num-seqs": "set the model's `concurrency`",
    "model": "remove it: the plan gives the verified folder",
    "nnodes": "remove it: one model over several hosts is not in this release",
    "node-rank": "remove it: one model over several hosts is not in this release",
    "port": "set the model's `port`",
    "revision": "set the model's `source.revision`",
    "root-path": "remove it: the gateway does the routing",
    "served-model-name": "set the model's `name`",
    "ssl-certfile": "remove it: the gateway does TLS",
    "ssl-keyfile": "remove it: the gateway does TLS",
    "uds": "set the model's `port`",
}

_ENVIRONMENT = {
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    # Longer than the gateway keeps an idle connection, else a reused one may be closed under a request.
    "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "80",
    # Pictures and sounds in a request are not fetched by following redirects to inner addresses.
    "VLLM_MEDIA_URL_ALLOW_REDIRECTS": "0",
    "VLLM_NO_USAGE_STATS": "1",
}

_ROUTES = (
    {"path": "/v1/chat/completions", "methods": ["POST"], "stream": True},
    {"path": "/v1/completions", "methods": ["POST"], "stream": True},
    {"path": "/v1/models", "methods": ["GET"], "stream": False},
)


class Vllm:
    """vLLM 0.32 and 0.33."""

    name = "vllm"
    image = "vllm"
    metrics_path = "/metrics"
    request_metrics: Sequence[str] = ("vllm:num_requests_running", "vllm:num_requests_waiting")
    routes: Sequence[Mapping[str, object]] = _ROUTES

    def render(self, start: Start, problems: Problems) -> Rendered:
        """Return the container of a model; wrong engine_args are noted."""
        model = start.model
        where = f"{model.where}.engine_args"
        known, warning = flags.for_tag(self.name, start.image.tag)
        if warning:
            problems.warn(warning)
        flags.check(known, self.name, model.engine_args, _OURS_ALONE, where, problems)
        ours: dict[str, object] = {
            "served-model-name": model.name,
            "host": "0.0.0.0",  # noqa: S104 - inside the container; the host's side is published on one address only
            "port": _PORT,
            "max-model-len": model.context,
            "max-num-seqs": model.concurrency,
        }
        environment = dict(_ENVIRONMENT)
        if start.cpu:
            kv_cache = model.resources.kv_cache_gib or 1
            ours |= {"dtype": "bfloat16", "enforce-eager": True}
            environment["VLLM_CPU_KVCACHE_SPACE"] = str(kv_cache)
            self._check_cpu(start, where, problems)
        else:
            if model.resources.kv_cache_gib is not None:
                place = f"{model.where}.resources.kv_cache_gib"
                fix = "remove it, or set engine_args.kv-cache-memory-bytes"
                problems.add(place, "it is for models without a GPU", fix, model.resources.kv_cache_gib)
            ours |= self._parallel(start, where, problems)
        ours |= {
            # Streams in flight may end before the container is stopped.
            "shutdown-timeout": _STOP_GRACE - 20,
            # The gateway counts tokens by it, and hides the event from clients that did not ask.
            "enable-force-include-usage": True,
            "disable-access-log-for-endpoints": "/health,/metrics,/ping",
        }
        command = [start.mount, *flags.arguments(known, ours, model.engine_args)]
        wait = 600 if start.cpu else 1800
        return Rendered(
            command=command,
            environment=dict(sorted(environment.items())),
            health={"path": "/health", "start_period": max(900, wait), "timeout": wait},
            stop_grace_period=_STOP_GRACE,
            shm_size="1g" if len(start.devices) <= 1 else "16g",
        )

    @staticmethod
    def _check_cpu(start: Start, where: str, problems: Problems) -> None:
        for name in ("gpu-memory-utilization", "tensor-parallel-size"):
            for spelled in (name, name.replace("-", "_")):
                if start.model.engine_args.get(spelled) is not None:
                    why = "the model has no GPU (gpus: 0)"
                    value = start.model.engine_args[spelled]
                    problems.add(f"{where}.{spelled}", why, "remove it, or give the model GPUs", value)

    @staticmethod
    def _parallel(start: Start, where: str, problems: Problems) -> dict[str, object]:
        """Tensor parallel over all GPUs, unless the operator divides them; the product must be their number."""
        given = {name.replace("_", "-"): value for name, value in start.model.engine_args.items()}
        tensor, pipeline = given.get("tensor-parallel-size"), given.get("pipeline-parallel-size", 1)
        count = len(start.devices)
        for name, value in (("tensor-parallel-size", tensor), ("pipeline-parallel-size", pipeline)):
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                problems.add(f"{where}.{name}", "it is not a whole number of at least 1", "write a number", value)
                return {}
        stages = pipeline if isinstance(pipeline, int) else 1
        ranks = tensor if isinstance(tensor, int) else count // stages
        if ranks * stages != count:
            why = f"tensor parallel {ranks} times pipeline parallel {stages} is not the model's {count} GPUs"
            name = "pipeline-parallel-size" if tensor is None else "tensor-parallel-size"
            problems.add(f"{where}.{name}", why, "give sizes whose product is the number of GPUs", given.get(name))
        return {"tensor-parallel-size": ranks}
