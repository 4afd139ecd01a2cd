"""One sentence for every kind of golden tensor, and the class of tolerance that it is compared under."""

FORWARD = {
    "input_ids": "token ids, one sequence per row",
    "labels": "label of each position in the reference's convention: the token itself, -100 = ignored; the model shifts",
    "targets": "labels already shifted by one within each sequence: what position i must predict, -100 = ignored",
    "sequence_offsets": "where each sequence starts in the packed rows of all other dumps, and the total",
    "greedy_ids": "the first 8 tokens of sequence 0 and the 16 likeliest next ones",
    "emb": "embedding rows; input of layer 0",
    "inv_freq": "rotary frequency of each pair",
    "cos": "cosine by position and pair, with YaRN's factor where there is one",
    "sin": "sine by position and pair, with YaRN's factor where there is one",
    "in_norm": "after input_layernorm",
    "q_a": "query latent before its norm",
    "q_a_ln": "query latent after its norm",
    "q": "queries before rotation, per head [nope; rope]",
    "kv_a": "[key-value latent before its norm; shared rotary key before rotation]",
    "lat_ln": "key-value latent after its norm: what is cached",
    "kv_b": "per head [nope key; value]",
    "q_rot": "rotated part of the queries, per head, interleaved pairs (0,1), (2,3), ...",
    "k_rot": "rotated shared key, interleaved pairs: what is cached",
    "attn_ctx": "heads' outputs before o_proj",
    "attn_out": "after o_proj",
    "resid1": "residual stream after attention",
    "post_norm": "after post_attention_layernorm; input of the feed-forward part",
    "router_logits": "gate matrix times input",
    "router_scores": "sigmoid of the logits",
    "choice_scores": "scores + bias: for choosing only",
    "group_scores": "sum of the two largest choice scores of each group",
    "topk_idx": "chosen experts, ascending id",
    "topk_w": "weights of the chosen experts, in the order of topk_idx",
    "tokens_per_expert": "assignments per expert over all sequences",
    "bias_next": "router bias + 0.001 sign(mean count - count)",
    "bias_next_centred": "the same with the mean of the signs taken off",
    "balance_unbiased": "mean over sequences of sum f P, f from the unbiased top-k over all experts; alpha = 1",
    "balance_routed": "the same, f from the experts actually chosen",
    "routed_out": "weighted sum of the routed experts",
    "shared_out": "output of the shared expert",
    "mlp_out": "output of the feed-forward part",
    "layer_out": "residual stream after the layer",
    "prenorm_out": "residual stream after the last layer",
    "final_norm": "after the final norm",
    "logits": "logits",
    "target_logprobs": "log-probability of each target; 0 where ignored",
    "e": "MTP: enorm of the embedding of the token k places ahead",
    "g": "MTP: hnorm of the hidden state",
    "z": "MTP: eh_proj [e; g]",
    "o": "MTP: after the norm before the shared head",
}

FILES = {
    "gradients.main": "gradient of loss_mean",
    "gradients.combined_post_norm": "gradient of loss_mean + 0.3/D sum of MTP losses, hidden states after their norm",
    "gradients.combined_pre_norm": "gradient of loss_mean + 0.3/D sum of MTP losses, hidden states before their norm",
    "gradients.balance_unbiased": "gradient of the sum over main layers of balance_unbiased",
    "gradients.balance_routed": "gradient of the sum over main layers of balance_routed",
    "adamw.step1": "parameter after one AdamW step on the combined loss (post_norm)",
    "adamw.step3": "parameter after three AdamW steps on the combined loss (post_norm)",
}

EXACT = {"input_ids", "labels", "targets", "sequence_offsets", "greedy_ids", "topk_idx", "tokens_per_expert"}


def about(name: str) -> dict[str, str]:
    """What a tensor of goldens.safetensors is."""
    kind = name.split(".")[-1]
    if name.startswith("grad."):
        return {"about": f"gradient of loss_mean at: {FORWARD[kind]}", "tolerance": "gradient"}
    return {"about": FORWARD[kind], "tolerance": "exact" if kind in EXACT else "forward"}
