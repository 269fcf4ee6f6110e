#!/usr/bin/env bash
# Start script of a bare TPU VM: environment, then a share of a sweep, then the VM goes.
#
# What to do is in the VM's metadata, where launch/engines/gcloud.py puts it. On a pod every VM runs this.
# By hand, on a VM of your own:
#   PE_REPOSITORY=https://github.com/me/pe_research PE_COMMIT=main PE_COMMAND='...' bash tpu_vm.sh
set -euo pipefail

metadata() { # of the instance, by name; empty where it has none
  curl --silent --fail --header 'Metadata-Flavor: Google' \
    "http://metadata.google.internal/computeMetadata/v1/instance/$1" || true
}

name=$(metadata attributes/pe-name)
PE_RANK=${PE_RANK:-$(metadata attributes/agent-worker-number)}
export PE_RANK=${PE_RANK:-0}
machines=$(metadata attributes/worker-network-endpoints)
if [[ -n $machines ]]; then
  PE_HOSTS=$(tr ',' '\n' <<<"$machines" | grep -c .)
  export PE_HOSTS
fi
told=0 # signals to leave, so far
child=
watchers=()

# shellcheck disable=SC2317,SC2329  # a trap calls it
leave() { # the run saves, and says when it has
  told=$((told + 1))
  if [[ -n $child ]]; then kill -TERM "$child" 2>/dev/null || true; fi
}
trap leave TERM

# shellcheck disable=SC2317,SC2329  # a trap calls it
finish() { # done, failed for good or never begun: a VM that idles costs the same
  status=$?
  kill "${watchers[@]}" 2>/dev/null || true
  if ((told)); then exit 0; fi # before it is taken away; whoever comes next goes on
  if [[ -n $name && $PE_RANK == 0 ]]; then
    zone=$(metadata zone)
    gcloud compute tpus queued-resources delete "$name" --zone="${zone##*/}" --force --quiet --async
  fi
  exit "$status"
}
trap finish EXIT

watch() { # tells this script to leave once a key of the metadata has a value
  until [[ $(metadata "$1?wait_for_change=true&timeout_sec=60") == "$2" ]]; do sleep 5; done
  kill -TERM $$
}
watch maintenance-event TERMINATE_ON_HOST_MAINTENANCE &>/dev/null &
watchers+=("$!")
watch preempted TRUE &>/dev/null &
watchers+=("$!")

repository=${PE_REPOSITORY:-$(metadata attributes/pe-repository)}
commit=${PE_COMMIT:-$(metadata attributes/pe-commit)}
checkout=${PE_CHECKOUT:-$(metadata attributes/pe-checkout)}
checkout=${checkout:-/pe_research}
work=${PE_COMMAND:-$(metadata attributes/pe-command)}
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

status=75
while ((status == 75 && told == 0)); do # a job hung or lost a peer, and goes on; launch counts
  bash -c "$work" &
  child=$!
  while true; do
    seen=$told
    status=0
    wait "$child" || status=$?
    if ((seen == told)); then break; fi # else a signal ended the wait, and not the work
  done
  child=
done
exit "$status"
