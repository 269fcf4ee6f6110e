"""A Slurm cluster on this machine: two nodes, each with one core and one GPU that is made up."""

import contextlib
import getpass
import os
import pathlib
import shutil
import socket
import subprocess
import time

import process_fixtures
import psutil

DAEMONS = ('munged', 'slurmctld', 'slurmd')
NODES = ('node0', 'node1')
CONFIG = """\
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={root}/munge,cred_expire=5
StateSaveLocation={root}
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/%n.pid
SlurmdSpoolDir={root}/%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
GresTypes=gpu
SchedulerParameters=sched_interval=2,bf_interval=2
PartitionName=gpu Nodes=ALL Default=YES
"""  # a job that is queued again waits until its credentials have expired
NODE = 'NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=1 Gres=gpu:1\n'


def program(name: str) -> str | None:
  """The path of a program of Slurm; daemons are not on every user's PATH."""
  return shutil.which(name, path=f'{os.environ["PATH"]}:/usr/sbin:/usr/local/sbin')


class Cluster:
  """The cluster whose files are in a folder; its programs are told so by `environment`."""

  def __init__(self, root: pathlib.Path):
    self.root = root
    self.environment = {'SLURM_CONF': str(root / 'slurm.conf')}

  def configure(self) -> None:
    """Writes what the daemons read."""
    self.root.mkdir()
    user, host = getpass.getuser(), socket.gethostname().partition('.')[0]
    text = CONFIG.format(root=self.root, user=user, host=host, port=process_fixtures.free_port())
    for name in NODES:
      text += NODE.format(name=name, host=host, port=process_fixtures.free_port())
    (self.root / 'slurm.conf').write_text(text)
    (self.root / 'gres.conf').write_text('Name=gpu File=/dev/null\n')
    (self.root / 'key').write_bytes(os.urandom(128))
    (self.root / 'key').chmod(0o600)

  def start(self) -> None:
    """Starts the daemons; raises TimeoutError where they do not come up."""
    self.configure()
    files = (
      f'--{name}={self.root / file}' for name, file in (('key-file', 'key'), ('socket', 'munge'))
    )
    more = (f'--{name}-file={self.root}/munge.{name}' for name in ('pid', 'seed', 'log'))
    self.daemon('munged', '--foreground', '--force', *files, *more)
    until((self.root / 'munge').exists, 'munged answers')
    self.daemon('slurmctld', '-D', '-c')
    for node in NODES:
      self.daemon('slurmd', '-D', '-N', node, SLURMD_NODENAME=node)
    states = lambda: self.run('sinfo', '--noheader', '--format=%T %D').split()
    until(lambda: states() == ['idle', str(len(NODES))], 'the nodes are idle')

  def daemon(self, name: str, *arguments: str, **environment: str) -> None:
    """Starts one of them; its output is a file in the folder."""
    with (self.root / f'{name}{"".join(environment.values())}.log').open('w') as log:
      subprocess.Popen(
        [program(name), *arguments], stdout=log, stderr=log, stdin=subprocess.DEVNULL,
        env=os.environ | self.environment | environment, start_new_session=True,
      )  # fmt: skip

  def run(self, *command: str) -> str:
    """What a program of Slurm prints."""
    return subprocess.run(
      command, env=os.environ | self.environment, capture_output=True, text=True, timeout=60
    ).stdout

  def kill(self, **environment: str) -> None:
    """Kills all processes of the cluster that have these variables: all, or those of a node."""
    wanted = (self.environment | environment).items()
    while found := [one for one in psutil.process_iter() if wanted <= variables(one).items()]:
      for one in found:
        with contextlib.suppress(psutil.NoSuchProcess):
          one.kill()

  def lose(self, node: str) -> None:
    """A node goes away with all that runs on it, and Slurm hears of it."""
    self.run('scontrol', 'update', f'nodename={node}', 'state=down', 'reason=lost')
    self.kill(SLURMD_NODENAME=node)


def variables(process: psutil.Process) -> dict[str, str]:
  """The environment of a process; empty where it has ended or is another user's."""
  try:
    return process.environ()
  except psutil.Error:
    return {}


def until(happened, what: str, seconds: float = 60) -> None:
  """Waits; raises TimeoutError after so many seconds."""
  deadline = time.monotonic() + seconds
  while not happened():
    if time.monotonic() > deadline:
      raise TimeoutError(f'after {seconds} s not yet: {what}')
    time.sleep(0.05)
