"""Whole documents are held out, by their text and nothing else."""

import numpy as np
import pytest
import run_fixtures

from pe_research.data import batches, texts


def corpus(folder, **overrides):
  return texts.load(run_fixtures.config(folder, **overrides))


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return run_fixtures.write_corpus(tmp_path_factory.mktemp('corpus') / 'text')


def test_every_document_is_on_one_side_whole(folder):
  loaded = corpus(folder)
  texts = {path.name: path.read_bytes() for path in folder.iterdir()}
  sides = {**_texts(loaded.train), **_texts(loaded.validation)}
  assert sides == texts
  assert len(loaded.train) == 10 and len(loaded.validation) == 2  # a fifth, rounded


def _texts(documents):
  return {name: documents[i].tobytes() for i, name in enumerate(documents.names)}


def test_names_do_not_move_documents_between_sides(folder, tmp_path):
  renamed = tmp_path / 'renamed'
  renamed.mkdir()
  for i, path in enumerate(sorted(folder.iterdir(), reverse=True)):
    (renamed / f'{i:02}.txt').write_bytes(path.read_bytes())
  held_out = lambda f: sorted(_texts(corpus(f).validation).values())
  assert held_out(folder) == held_out(renamed)


def test_facts_tell_a_changed_document(folder, tmp_path):
  changed = run_fixtures.write_corpus(tmp_path / 'text')
  same = corpus(changed).facts
  assert same == corpus(folder).facts
  first = sorted(changed.iterdir())[0]
  first.write_text(first.read_text().replace('the', 'tho'))
  other = corpus(changed).facts
  assert other['source'] != same['source']
  assert (other['train'], other['validation']) != (same['train'], same['validation'])


def test_a_single_document_cannot_be_held_out(tmp_path):
  folder = run_fixtures.write_corpus(tmp_path / 'one', documents=1)
  with pytest.raises(ValueError, match=r'1 document.*at least 2.*validation_split'):
    corpus(folder)


def test_what_does_not_fit_is_sent_to_the_streaming_loader(folder, monkeypatch):
  monkeypatch.setattr(texts, 'MEMORY_LIMIT', 100)
  with pytest.raises(ValueError, match=r"data\.loader='grain'"):
    corpus(folder)


def test_streaming_reads_the_split_that_it_is_given(folder):
  streamed = {
    'data__loader': 'grain',
    'data__train_split': 'train[:8]',
    'data__validation_split': 'train[8:]',
  }
  loaded = corpus(folder, **streamed)
  assert loaded.train is None and len(loaded.validation) == 4
  config = run_fixtures.config(folder, **streamed)
  stream, held = batches.build(loaded, config, 0), b' '.join(_texts(loaded.validation).values())
  texts = [loaded.source[i] for i in range(len(loaded.source))]
  for _ in range(20):
    for window in next(stream)['tokens']:
      window = bytes(window.tolist())
      assert any(window in text for text in texts) and window not in held


def test_long_documents_of_a_stream_are_found_by_the_seed(folder, monkeypatch):
  split = {'data__train_split': 'train[:8]', 'data__validation_split': 'train[8:]'}
  held, loaded = corpus(folder, **split), corpus(folder, data__loader='grain', **split)
  assert texts.long_documents(held, 3, 10, 0) is held.train
  length = int(np.sort(held.train.lengths)[3])  # four are longer
  found = [texts.long_documents(loaded, 4, length, seed) for seed in (0, 0, 1)]
  for documents in found:
    assert len(set(documents.names)) == 4 and documents.lengths.min() > length
    assert {n: documents[i].tobytes() for i, n in enumerate(documents.names)}.items() <= {
      n: held.train[i].tobytes() for i, n in enumerate(held.train.names)
    }.items()
  assert found[0].names == found[1].names != found[2].names
  with pytest.raises(ValueError, match=rf'5 .* more than {length} tokens .*of 8 .*, 4 are'):
    texts.long_documents(loaded, 5, length, 0)
  monkeypatch.setattr(texts, 'READ', 3)
  with pytest.raises(ValueError, match='of 3 that were read'):
    texts.long_documents(loaded, 4, length, 0)


def test_a_named_split_is_held_out_whole(folder):
  loaded = corpus(folder, data__train_split='train[:8]', data__validation_split='train[8:]')
  assert len(loaded.train) == 8 and len(loaded.validation) == 4
  assert not set(loaded.train.names) & set(loaded.validation.names)


def test_sentencepiece_sees_training_documents_only_and_counts_bytes(folder):
  loaded = corpus(folder, data__tokenizer='sentencepiece', data__vocab=300)
  assert loaded.tokenizer.vocab == 300
  for i, name in enumerate(loaded.validation.names):
    text = (folder / name).read_bytes()
    assert loaded.tokenizer.decode(loaded.validation[i]) == text
    assert loaded.tokenizer.token_bytes[loaded.validation[i]].sum() == len(text)
