"""The names under which vLLM 0.32 and 0.33 export figures, so that nothing watches one that does not exist."""

from __future__ import annotations

import re

_PLAIN = """
num_requests_running num_requests_waiting num_requests_waiting_by_reason kv_cache_usage_perc cache_config_info
engine_sleep_state lora_requests_info
prompt_tokens_total prompt_tokens_by_source_total prompt_tokens_cached_total generation_tokens_total
request_success_total num_preemptions_total prefix_cache_queries_total prefix_cache_hits_total
external_prefix_cache_queries_total external_prefix_cache_hits_total mm_cache_queries_total mm_cache_hits_total
admission_rejections_total corrupted_requests_total
"""
_HISTOGRAMS = """
time_to_first_token_seconds inter_token_latency_seconds request_time_per_output_token_seconds
e2e_request_latency_seconds request_queue_time_seconds request_inference_time_seconds request_prefill_time_seconds
request_decode_time_seconds request_prompt_tokens request_generation_tokens request_max_num_generation_tokens
request_params_n request_params_max_tokens request_num_preemptions request_prefill_kv_computed_tokens
iteration_tokens_total
"""
VLLM = {f"vllm:{name}" for name in _PLAIN.split()} | {
    f"vllm:{name}_{part}" for name in _HISTOGRAMS.split() for part in ("bucket", "sum", "count")
}


def vllm_names(expression: str) -> set[str]:
    """The vLLM metrics in a PromQL expression."""
    return set(re.findall(r"\bvllm:[a-z0-9_]+", expression))
