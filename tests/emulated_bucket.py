"""An emulator of Google's storage on this machine, which the same libraries reach."""

import socket

import pytest
import run_fixtures
from gcp_storage_emulator import server

BUCKET = 'gs://pe-bucket'


def versioned(download):
  """A download that says which generation it is of, as the real storage does."""

  def serve(request, response, storage, *rest, **more):
    download(request, response, storage, *rest, **more)
    if response.status.value < 300:
      names = (request.params[name] for name in ('bucket_name', 'object_id'))
      response['x-goog-generation'] = storage.get_file_obj(*names)['generation']

  return serve


@pytest.fixture(scope='module')
def bucket(tmp_path_factory):
  """The URL of a bucket that this process and all that it starts can reach."""
  root = tmp_path_factory.mktemp('storage')
  with pytest.MonkeyPatch.context() as patch:
    patch.chdir(root)
    patch.setattr(server.objects, 'download', versioned(server.objects.download))
    with socket.socket() as free:
      free.bind(('127.0.0.1', 0))
      port = free.getsockname()[1]
    running = server.create_server('127.0.0.1', port, in_memory=True, default_bucket=BUCKET[5:])
    address = f'http://127.0.0.1:{port}'
    patch.setenv('STORAGE_EMULATOR_HOST', address)
    patch.setenv('TENSORSTORE_GCS_HTTP_URL', address)
    patch.setenv('GOOGLE_CLOUD_PROJECT', 'test')
    patch.chdir(run_fixtures.ROOT)
    running.start()
    yield BUCKET
    running.stop()
