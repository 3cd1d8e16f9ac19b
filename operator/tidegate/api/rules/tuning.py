"""How Triton may run a model."""

from typing import Final

from tidegate.api.cel import Rule, positive_duration

RULES: Final[tuple[Rule, ...]] = (
    Rule(
        "spec.model.config",
        "!has(self.dynamicBatching) || !has(self.maxBatchSize) || self.maxBatchSize > 0",
        "maxBatchSize 0 turns batching off; raise it, or leave out dynamicBatching",
        ".maxBatchSize",
    ),
    Rule(
        "spec.model.config",
        "!has(self.dynamicBatching) || !has(self.dynamicBatching.preferredSizes)"
        " || !has(self.maxBatchSize)"
        " || self.dynamicBatching.preferredSizes.all(n, n <= self.maxBatchSize)",
        "preferredSizes goes up to {self.dynamicBatching.preferredSizes.max()}, above maxBatchSize "
        "{self.maxBatchSize}; lower it, or raise maxBatchSize",
        ".dynamicBatching",
    ),
    Rule(
        "spec.model.config.dynamicBatching.preferredSizes",
        "self.isSorted() && self.all(a, self.exists_one(b, a == b))",
        "{self} is not ascending; sort the sizes and name each once",
    ),
    *(
        positive_duration(
            f"spec.model.config.dynamicBatching{at}",
            "queueTimeout",
            "write for example 500ms, or leave it out",
        )
        for at in ("", ".priorities[]")
    ),
    Rule(
        "spec.model.config.dynamicBatching",
        "!has(self.defaultPriority)"
        " || has(self.priorities) && self.defaultPriority <= self.priorities.size()",
        "defaultPriority is {self.defaultPriority}, and there are "
        "{has(self.priorities) ? self.priorities.size() : 0} priorities; name one of them",
        ".defaultPriority",
    ),
    Rule(
        "spec.model.config",
        "!has(self.warmup) || !has(self.maxBatchSize)"
        " || self.warmup.batchSize <= (self.maxBatchSize == 0 ? 1 : self.maxBatchSize)",
        "warm-up with batches of {self.warmup.batchSize} is above maxBatchSize "
        "{self.maxBatchSize}; lower it",
        ".warmup.batchSize",
    ),
    Rule(
        "spec.model.config.override",
        "self.matches('[^ \\t\\r\\n]')",
        "an empty override says nothing; write a ModelConfig as JSON or pbtxt, or leave it out",
    ),
)
