#!/usr/bin/env bash
# Startup script of a bare TPU VM: installs the environment, runs a share, deletes the VM.
#
# launch/engines/gcloud.py puts the command into the VM's metadata. On a pod every VM runs this.
# By hand, on a VM of your own:
#   PE_REPOSITORY=https://github.com/me/pe_research PE_COMMIT=main PE_COMMAND='...' bash tpu_vm.sh
set -euo pipefail

metadata() { # value of a key of the instance; empty if there is none
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
told=0 # number of TERM signals so far
child=
watchers=()

# shellcheck disable=SC2317,SC2329  # a trap calls it
leave() { # passes TERM on; the run saves and exits
  told=$((told + 1))
  if [[ -n $child ]]; then kill -TERM "$child" 2>/dev/null || true; fi
}
trap leave TERM

# shellcheck disable=SC2317,SC2329  # a trap calls it
finish() { # the work is done, failed or never begun: an idle VM costs the same
  status=$?
  kill "${watchers[@]}" 2>/dev/null || true
  if ((told)); then exit 0; fi # preempted; the next VM resumes
  if [[ -n $name && $PE_RANK == 0 ]]; then
    zone=$(metadata zone)
    gcloud compute tpus queued-resources delete "$name" --zone="${zone##*/}" --force --quiet --async
  fi
  exit "$status"
}
trap finish EXIT

watch() { # sends TERM to this script once a key of the metadata has a value
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

if [[ ! -d $checkout/.git ]]; then # a restarted VM has it
  git clone --quiet "$repository" "$checkout"
fi
git -C "$checkout" fetch --quiet origin
git -C "$checkout" checkout --quiet --detach "$commit"
cd "$checkout"
if [[ ! -e .venv/ready ]]; then
  python3 -m pip install --quiet uv # installs a recent Python
  python3 -m uv venv --quiet --clear --python 3.12 .venv
  python3 -m uv pip install --quiet --python .venv/bin/python -r launch/requirements-tpu.txt
  touch .venv/ready
fi

status=75
while ((status == 75 && told == 0)); do # a job hung or lost a peer: resume; launch limits the tries
  bash -c "$work" &
  child=$!
  while true; do
    seen=$told
    status=0
    wait "$child" || status=$?
    if ((seen == told)); then break; fi # otherwise a signal ended the wait, and the work continues
  done
  child=
done
exit "$status"
