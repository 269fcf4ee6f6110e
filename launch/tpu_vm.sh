#!/usr/bin/env bash
# Start script of a bare TPU VM: environment, then a share of a sweep, then the VM goes.
#
# What to do is in the VM's metadata, where launch/gcloud.py puts it. On a pod every VM runs this.
# By hand, on a VM of your own:
#   PE_REPOSITORY=https://github.com/me/pe_research PE_COMMIT=main PE_COMMAND='...' bash tpu_vm.sh
set -euo pipefail

metadata() { # of the instance, by name; empty where it has none
  curl --silent --fail --header 'Metadata-Flavor: Google' \
    "http://metadata.google.internal/computeMetadata/v1/instance/$1" || true
}

repository=${PE_REPOSITORY:-$(metadata attributes/pe-repository)}
commit=${PE_COMMIT:-$(metadata attributes/pe-commit)}
checkout=${PE_CHECKOUT:-$(metadata attributes/pe-checkout)}
checkout=${checkout:-/pe_research}
work=${PE_COMMAND:-$(metadata attributes/pe-command)}
name=$(metadata attributes/pe-name)
PE_RANK=${PE_RANK:-$(metadata attributes/agent-worker-number)}
export PE_RANK=${PE_RANK:-0}
: "${repository:?set PE_REPOSITORY, or metadata pe-repository}"
: "${commit:?set PE_COMMIT, or metadata pe-commit}"
: "${work:?set PE_COMMAND, or metadata pe-command}"

if [[ ! -d $checkout/.git ]]; then # a VM that comes back has it
  git clone --quiet "$repository" "$checkout"
fi
git -C "$checkout" fetch --quiet origin
git -C "$checkout" checkout --quiet --detach "$commit"
cd "$checkout"
if [[ ! -e .venv/ready ]]; then
  python3 -m pip install --quiet uv # brings a Python that is new enough
  python3 -m uv venv --quiet --clear --python 3.12 .venv
  python3 -m uv pip install --quiet --python .venv/bin/python -r launch/requirements-tpu.txt
  touch .venv/ready
fi

status=0
bash -c "$work" || status=$?
if ((status == 75)); then # told to leave, as before a preemption; another VM goes on
  exit 0
fi
if [[ -n $name && $PE_RANK == 0 ]]; then # done or failed for good: a VM that idles costs the same
  zone=$(metadata zone)
  gcloud compute tpus queued-resources delete "$name" --zone="${zone##*/}" --force --quiet --async
fi
exit "$status"
