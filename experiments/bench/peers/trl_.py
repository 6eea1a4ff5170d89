"""TRL's GKD trainer with lambda 1 and beta 1: on-policy distillation by the reverse KL."""

from __future__ import annotations

import tempfile
import time

import bench_protocol


def measure(session: bench_protocol.Session) -> None:
    """Whole steps of `GKDTrainer.train`: rollout, teacher, loss, update."""
    import datasets
    import tokenizers
    import torch
    import transformers
    from trl.experimental.gkd import GKDConfig, GKDTrainer

    session.packages = ("trl", "torch", "transformers", "accelerate")
    request = session.request
    shape, optim = request["train"], request["optimizer"]
    if request["dtype"] != "float32":
        raise ValueError(f"Compared at equal precision in float32, not in {request['dtype']}.")

    def load(path: str):
        return transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)

    words = {str(i): i for i in range(request["vocab_size"])}
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="0")),
        pad_token="0",
        eos_token="0",
    )
    prompts = torch.tensor(session.tokens(shape["batch"], shape["prompt"]))

    def collate(_):
        # `prompts` is what the rollout reads; the rest would be an off-policy batch.
        ones = torch.ones_like(prompts)
        return {
            "prompts": prompts,
            "prompt_attention_mask": ones,
            "input_ids": prompts,
            "attention_mask": ones,
            "labels": prompts,
        }

    class Steps(transformers.TrainerCallback):
        """Takes the trainer's steps on demand. The first two warm up."""

        taken = 0
        started = 0.0
        first = 0.0

        def on_step_begin(self, args, state, control, **kwargs):
            if self.taken == 2:
                session.ready(self.first)
            if self.taken >= 2 and not session.wait():
                control.should_training_stop = True
                self.stopped = True
            self.started = time.perf_counter()

        def on_step_end(self, args, state, control, **kwargs):
            seconds = time.perf_counter() - self.started
            if self.taken == 0:
                self.first = seconds
            elif self.taken >= 2 and not getattr(self, "stopped", False):
                session.report(seconds)
            self.taken += 1

    with tempfile.TemporaryDirectory() as scratch:
        config = GKDConfig(
            output_dir=scratch,
            per_device_train_batch_size=shape["batch"],
            max_steps=10_000,
            lmbda=1.0,
            beta=1.0,
            temperature=1.0,
            max_new_tokens=shape["new"],
            max_length=shape["prompt"] + shape["new"],
            learning_rate=optim["learning_rate"],
            adam_beta1=optim["b1"],
            adam_beta2=optim["b2"],
            adam_epsilon=optim["eps"],
            weight_decay=optim["weight_decay"],
            max_grad_norm=optim["clip_norm"],
            lr_scheduler_type="constant",
            bf16=False,
            fp16=False,
            gradient_checkpointing=False,
            logging_strategy="no",
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            use_cpu=not torch.cuda.is_available(),
            dataloader_pin_memory=False,
            seed=request["seed"],
        )
        trainer = GKDTrainer(
            model=load(request["student"]),
            teacher_model=load(request["teacher"]),
            args=config,
            data_collator=collate,
            train_dataset=datasets.Dataset.from_dict({"row": list(range(shape["batch"]))}),
            processing_class=tokenizer,
            callbacks=[Steps()],
        )
        trainer.generation_config.eos_token_id = None  # every completion runs to its full length
        trainer.train()
    session.facts["tokens"] = shape["batch"] * (shape["prompt"] + shape["new"])


if __name__ == "__main__":
    bench_protocol.serve(measure)
