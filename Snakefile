"""The workflow, which is in workflow/Snakefile: `snakemake` finds this file in a clone, and profiles/default beside it."""


include: "workflow/Snakefile"


workflow.default_target = rules.all.rule.name  # an included file sets none
