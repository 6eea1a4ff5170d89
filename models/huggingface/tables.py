"""What fields of a `config.json` that is not ours may hold without changing the model.

Known are three kinds: `MAPPED` ones are read; `PINNED` ones change what is computed, except at the
values listed; all others do nothing in a dense decoder, whatever they hold. Any other field raises,
unless it is null, which says that it is not set: a field that nothing reads is how a port goes
wrong in silence.
"""

from __future__ import annotations

from typing import Any

# What transformers assumes where a field is absent, in all families and in each.
DEFAULTS = {"rms_norm_eps": 1e-6, "tie_word_embeddings": False}
FAMILIES: dict[str, dict[str, int]] = {
    "llama": {"max_position_embeddings": 2048},
    "qwen2": {"max_position_embeddings": 32768, "num_key_value_heads": 32},
    "qwen3": {"max_position_embeddings": 32768, "num_key_value_heads": 32, "head_dim": 128},
}

MAPPED = """
    dtype head_dim hidden_size intermediate_size layer_types max_position_embeddings
    max_window_layers model_type num_attention_heads num_hidden_layers num_key_value_heads
    original_max_position_embeddings rms_norm_eps rope_parameters rope_scaling rope_theta
    sliding_window tie_word_embeddings torch_dtype use_sliding_window vocab_size
""".split()  # noqa: SIM905

# Switches that must be off.
_OFF = """
    add_cross_attention alibi bias head_bias is_encoder_decoder lm_head_bias mlp_bias
    output_router_logits rope_interleaved rope_traditional tf_legacy_loss tie_encoder_decoder
    torchscript use_alibi use_bfloat16 use_bias use_bidirectional_attention use_dynamic_ntk
    use_logn_attn use_mrope use_parallel_residual
""".split()  # noqa: SIM905
# Rates of dropout, and numbers of experts and of layers that are not there.
_ZERO = """
    attention_dropout attention_probs_dropout_prob attn_pdrop chunk_size_feed_forward dropout
    embd_pdrop emb_dropout ffn_dropout hidden_dropout hidden_dropout_prob layerdrop n_routed_experts
    num_experts num_experts_per_tok num_local_experts num_nextn_predict_layers resid_dropout
    resid_pdrop residual_dropout
""".split()  # noqa: SIM905
# Multipliers.
_ONE = """
    embedding_multiplier logit_scale logits_scaling partial_rotary_factor pretraining_tp
    residual_multiplier rope_ratio rotary_pct
""".split()  # noqa: SIM905

PINNED: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(_OFF, (False,)),
    **dict.fromkeys(_ZERO, (0,)),
    **dict.fromkeys(_ONE, (1,)),
    "auto_map": ({},),
    "hidden_act": ("silu", "swish"),
    "is_causal": (True,),
    "mlp_only_layers": ([],),
    "no_bias": (True,),
    "pruned_heads": ({},),
    "quantization_config": ({},),
}
# Switches that are on in one family, and off in the others.
ON_IN_FAMILY = {
    **dict.fromkeys(("attention_bias", "qkv_bias"), "qwen2"),
    **dict.fromkeys(("qk_layernorm", "qk_norm", "use_qk_norm"), "qwen3"),
}

# Provenance, bookkeeping of writers and loaders, losses, outputs we don't return.
_BOOKKEEPING = """
    _attn_implementation _attn_implementation_autoset _attn_implementation_internal _commit_hash
    _experts_implementation _flash_attn_2_enabled _from_model_config _name_or_path architectures
    attn_implementation axolotl_version base_model base_model_name_or_path bf16 classifier_dropout
    datasets decoder_sparse_step description finetuning_task flash_attention fp16 fp32
    gradient_checkpointing id2label ignore_index initializer_factor initializer_range
    initializer_std is_decoder is_llama_config keys_to_ignore_at_inference label2id label_smoothing
    language library_name license logits_to_keep loss_type max_seq_len max_seq_length
    max_sequence_length model_max_length model_name moe_intermediate_size name name_or_path
    neftune_noise_alpha norm_topk_prob num_labels num_logits_to_keep output_attentions
    output_hidden_states pad_vocab_size_multiple padding_side peft_version pipeline_tag prefix
    problem_type processor_class return_dict revision router_aux_loss_coef seq_len seq_length tags
    task_specific_params tokenizer_class tokenizer_model_max_length tokenizer_name
    tokenizer_padding_side transformers.js_config transformers_version transformers_weights
    trl_version truncation_side trust_remote_code unsloth_fixed unsloth_version use_cache
    use_flash_attention use_flash_attention_2 use_flash_attn use_return_dict
""".split()  # noqa: SIM905
# Defaults of generation, which old configs hold.
_GENERATION = """
    assistant_confidence_threshold assistant_early_exit assistant_lookbehind bad_words_ids
    begin_suppress_tokens bos_token_id cache_config cache_implementation cls_token_id compile_config
    constraints decoder_start_token_id disable_compile diversity_penalty do_sample dola_layers
    early_stopping encoder_no_repeat_ngram_size encoder_repetition_penalty eos_token_id
    epsilon_cutoff eta_cutoff exponential_decay_length_penalty forced_bos_token_id
    forced_decoder_ids forced_eos_token_id force_words_ids guidance_scale is_assistant
    length_penalty low_memory mask_token_id max_length max_matching_ngram_size max_new_tokens
    max_time min_length min_new_tokens min_p no_repeat_ngram_size num_assistant_tokens
    num_assistant_tokens_schedule num_beam_groups num_beams num_return_sequences output_logits
    output_scores pad_token_id penalty_alpha prefill_chunk_size prompt_lookup_num_tokens
    remove_invalid_values renormalize_logits repetition_penalty return_dict_in_generate
    return_legacy_cache sep_token_id sequence_bias stop_strings suppress_tokens target_lookbehind
    temperature token_healing top_h top_k top_p typical_p unk_token_id watermarking_config
""".split()  # noqa: SIM905

KNOWN = frozenset([*MAPPED, *PINNED, *ON_IN_FAMILY, *_BOOKKEEPING, *_GENERATION])
