# Tables 1 to 3 (and the curves over the renderer's knobs), one papermill run of 05_train for each cell and seed.
#
#     snakemake --cores 2 table3 --config data=embedded profile=laptop seeds=3
#
# targets: tables (default: Tables 1, 2, 3), table1, table2, table3, curves, controls (notebook 08). Settings: see batch.py. The name of a run's folder
# ends in a hash of all its settings: a changed setting makes a new run, and what is there with these settings is kept.
# Options that a batch wants (profiles/default) are read by Snakemake itself.
import os
import shlex
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

ROOT = Path(workflow.basedir)
sys.path.insert(0, str(ROOT))
import batch
from launch import MALLOC
from reidsa_utils import InputError

RUNS = Path("runs").resolve()
# not yet known to Snakemake while it reads this file
asked = [word for word in sys.argv[1:] if word in batch.TARGETS] or ["tables"]
try:
    BATCH = batch.make_batch(config, asked)
    if workflow.is_main_process:
        batch.check(BATCH, RUNS)
except InputError as error:
    raise WorkflowError(str(error))
if BATCH.gpus and "gpu" not in workflow.global_resources:
    workflow.register_resource("gpu", BATCH.gpus)
os.environ |= MALLOC

if workflow.is_main_process:
    if {"-n", "--dry-run", "--dryrun"} & set(sys.argv):
        print(*(("finished  " if batch.finished(name, RUNS) else "would run ") + name for name in BATCH.runs), sep="\n")
    at_a_time = workflow.resource_settings.nodes or max(1, (workflow.resource_settings.cores or 1) // BATCH.threads)
    print(batch.plan(BATCH, at_a_time, RUNS), file=sys.stderr)
PAPERMILL = f"{shlex.quote(sys.executable)} -m papermill --cwd {shlex.quote(str(ROOT / 'notebooks'))} -k python3 --no-progress-bar"
FOLDER = f"runs/tables/{BATCH.title}"


wildcard_constraints:
    run="[^/]+",
    product="tables|controls",


for target in batch.TARGETS:

    rule:
        name: target
        localrule: True
        input: f"{FOLDER}/{target}/{batch.PRODUCT.get(target, 'tables')}.md", [f"runs/{name}/record.json" for name in BATCH.targets[target]]


onstart:
    try:
        batch.watch(BATCH, RUNS, batch.only_one_batch(RUNS))
    except InputError as error:
        raise WorkflowError(str(error))


onerror:
    batch.tell(BATCH, RUNS)


onsuccess:
    batch.tell(BATCH, RUNS)


rule train:
    input: ancient(ROOT / "notebooks" / "05_train.ipynb")  # saving it runs nothing again: the numbers come from reidsa_utils
    output: "runs/{run}/record.json"  # all that Snakemake may delete; the checkpoint stays for the next start
    log: notebook="runs/{run}/05_train.ipynb", text="runs/{run}/papermill.log"
    params: arguments=lambda wildcards: batch.arguments(BATCH.every[wildcards.run], RUNS / wildcards.run)
    threads: BATCH.threads
    resources: gpu=1 if BATCH.gpus else 0
    shell:
        "rm -f runs/{wildcards.run}/failed;"
        " if [ -z \"${{SLURM_JOB_ID:-}}${{KUBERNETES_SERVICE_HOST:-}}\" ]; then"  # one machine: a card of one's own; a cluster gives one
        "  for g in $(seq 0 $(( {BATCH.gpus} - 1 ))); do"
        "    exec 9> runs/.gpu$g.lock; flock --nonblock 9 && export CUDA_VISIBLE_DEVICES=$g && break;"
        "  done; fi;"
        " REIDSA_FIGURES={RUNS:q}/{wildcards.run} {PAPERMILL} {input:q} {log.notebook} {params.arguments} > {log.text} 2>&1"
        " || {{ touch runs/{wildcards.run}/failed; exit 1; }}"


rule report:
    input: lambda wildcards: [f"runs/{name}/record.json" for name in BATCH.targets[wildcards.target]]
    output: "runs/tables/{title}/{target}/{product}.md"
    log: text="runs/tables/{title}/{target}/{product}.log"
    params:
        folder=lambda wildcards, output: Path(output[0]).parent.resolve(),
        notebook=lambda wildcards: batch.NOTEBOOK[wildcards.product],
    localrule: True
    shell:
        "rm -f {params.folder:q}/*.json {params.folder:q}/failed;"  # of an earlier call with other settings
        " {{ {sys.executable:q} {ROOT:q}/batch.py publish $(dirname {input}) --into {params.folder:q} &&"
        " REIDSA_FIGURES={params.folder:q} {PAPERMILL} {ROOT:q}/notebooks/{params.notebook} {params.folder:q}/{params.notebook} -p records {params.folder:q}; }}"
        " > {log.text:q} 2>&1 || {{ touch {params.folder:q}/failed; exit 1; }}"
