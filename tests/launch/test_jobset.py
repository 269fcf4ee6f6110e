"""JobSets: Kubernetes would take them, and restarts what was interrupted, and nothing else."""

import dataclasses
import pathlib

import jsonschema
import pytest
import yaml
from engine_cases import SETTINGS, submissions

from launch.engines import base

SCHEMA = pathlib.Path(__file__).with_name('jobset.yaml')


def changed(**given):
  return dataclasses.replace(SETTINGS['jobset'], **given)


def closed(schema):
  """The schema, by which objects have no fields but those that it names."""
  if isinstance(schema, list):
    return [closed(one) for one in schema]
  if not isinstance(schema, dict):
    return schema
  only = {'type': 'object', 'additionalProperties': False} if 'properties' in schema else {}
  return {name: closed(value) for name, value in schema.items()} | only


@pytest.mark.parametrize('given', [{}, {'spot': True}, {'hosts': 1, 'all_chips': False}])
def test_a_manifest_follows_the_published_schema(given):
  validator = jsonschema.Draft202012Validator(closed(yaml.safe_load(SCHEMA.read_text())))
  manifest = changed(**given).manifest('alibi-0', 'true')
  assert not list(validator.iter_errors(manifest))
  manifest['spec']['replicatedJobs'][0]['template']['spec']['backofLimit'] = 0
  assert [error.validator for error in validator.iter_errors(manifest)] == ['additionalProperties']


def parts(made):
  """Of a manifest: all of it, the job, the pod."""
  text = made.submissions('gs://mine/jobs.json', {1: 'alibi-1'}, 2)[0].files['alibi-1.yaml']
  manifest = yaml.safe_load(text)
  job = manifest['spec']['replicatedJobs'][0]['template']['spec']
  return manifest, job, job['template']['spec']


def restarts(manifest, job, status, disrupted):
  """What the controllers do when a pod ends with a status, on a node that is taken away or not."""
  reason = 'BackoffLimitExceeded'
  for rule in job['podFailurePolicy']['rules']:
    codes = rule.get('onExitCodes', {'operator': 'In', 'values': []})
    if (disrupted and 'onPodConditions' in rule) or (
      (status in codes['values']) == (codes['operator'] == 'In')
    ):
      reason = 'PodFailurePolicy' if rule['action'] == 'FailJob' else reason
      break
  rules = manifest['spec']['failurePolicy']['rules']
  return not any(
    rule['action'] == 'FailJobSet' and reason in rule['onJobFailureReasons'] for rule in rules
  )


@pytest.mark.parametrize(
  'status, disrupted, again',
  [
    (base.STOPPED, False, True),
    (base.STOPPED, True, True),
    (137, True, True),  # it had no time to save
    (137, False, False),  # out of memory
    (1, False, False),
    (2, False, False),
  ],
)
def test_what_was_interrupted_restarts_and_a_mistake_does_not(status, disrupted, again):
  manifest, job, pod = parts(SETTINGS['jobset'])
  assert job['backoffLimit'] == 0 and pod['restartPolicy'] == 'Never'
  assert restarts(manifest, job, status, disrupted) is again


def test_a_slice_has_its_machines_and_they_have_their_chips():
  manifest, job, pod = parts(changed(topology='4x4', hosts=4, notice=77, restarts=3))
  assert job['completions'] == job['parallelism'] == 4 and job['completionMode'] == 'Indexed'
  assert pod['containers'][0]['resources'] == {'limits': {'google.com/tpu': 4}}
  assert pod['terminationGracePeriodSeconds'] == 77
  assert manifest['spec']['failurePolicy']['maxRestarts'] == 3
  assert manifest['metadata']['labels'] == {'kueue.x-k8s.io/queue-name': 'tpus'}
  assert set(pod['nodeSelector'].values()) == {'tpu-v5-lite-podslice', '4x4'}
  assert pod['containers'][0]['command'][2].endswith('--share=1/2 --all-chips --hosts=4')
  assert 'annotations' in manifest['metadata']
  alone, _, pod = parts(changed(hosts=1, spot=True))
  assert 'annotations' not in alone['metadata']  # nodes of one machine are shared by slices
  assert (
    pod['nodeSelector']['cloud.google.com/gke-spot'] == pod['tolerations'][0]['value'] == 'true'
  )


@pytest.mark.parametrize(
  'given, message',
  [
    ({'hosts': 3}, r"hosts = 3, and topology = '2x4' has 8 chips; .* set hosts = 1 or 2 or 4 or 8"),
    ({'topology': '3x3'}, 'has 9 chips; .* set hosts = 9'),
    ({'topology': '2by4'}, "topology = '2by4' is none; write for example '2x4'"),
    ({'topology': '0x4'}, 'is none'),
  ],
)
def test_a_slice_that_cannot_be_is_refused(given, message):
  with pytest.raises(ValueError, match=message):
    changed(**given)


def test_kubectl_is_told_which_cluster():
  (one,) = submissions('jobset', 1)
  where = ('kubectl', '--context=gke_my-project_us-west4-a_mine', '--namespace=default')
  assert one.command == (*where, 'apply', '-f', 'alibi-0.yaml')
  assert SETTINGS['jobset'].signed_in[:3] == where
