// The contracts of the ports, held against ports of one's own, and a pipeline over them: exactly-once without a server.
import { mkdtemp, readFile, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { exactlyOnce, fromRecords } from 'kafka-clickhouse-rx';
import {
  batchSinkContract,
  recordSourceContract,
  stateStoreContract,
  type RowOrigin,
} from 'kafka-clickhouse-rx/testing';
import { lastValueFrom, of, takeWhile, toArray } from 'rxjs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { fileStore, ndjsonSink } from './own-ports.js';

let folder: string;
beforeAll(async () => void (folder = await mkdtemp(join(tmpdir(), 'own-ports-'))));
afterAll(() => rm(folder, { recursive: true }));

async function rowsIn(path: string): Promise<RowOrigin[]> {
  const names = (await readdir(path).catch(() => [])).filter((name) => name.endsWith('.ndjson'));
  const texts = await Promise.all(names.map((name) => readFile(join(path, name), 'utf8')));
  return texts.flatMap((text) =>
    text
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line) as RowOrigin),
  );
}

describe('a state store in files', () => {
  for (const { name, run } of stateStoreContract(() => fileStore(join(folder, 'states')))) test(name, run);
});

describe('a sink that writes newline-delimited JSON', () => {
  const open = async () => {
    const path = await mkdtemp(join(folder, 'rows-'));
    return { sink: ndjsonSink(path), rows: () => rowsIn(path) };
  };
  for (const { name, run } of batchSinkContract(open)) test(name, run);
});

const clicks = of(...Array.from({ length: 10 }, (_, n) => ({ value: `{"n":${n}}` })));

describe('an Observable of records', () => {
  const open = () => {
    const source = fromRecords(clicks, { topic: 'clicks' });
    return { open: () => source };
  };
  for (const { name, run } of recordSourceContract(open)) test(name, run);
});

test('a pipeline over them: who comes next goes on where the state says, and nothing is there twice', async () => {
  const [states, rows] = [join(folder, 'pipeline-states'), join(folder, 'pipeline-rows')];
  const life = (owner: string) =>
    exactlyOnce(fromRecords(clicks, { topic: 'clicks' }), ndjsonSink(rows), fileStore(states), {
      group: 'g',
      owner,
      batch: { count: 3, maxWaitMs: 10 },
    });
  // The first one leaves after its first batch, with what is in doubt by then.
  await lastValueFrom(life('first').pipe(takeWhile(() => false, true)));
  await lastValueFrom(life('second').pipe(toArray()));
  expect((await rowsIn(rows)).map(({ offset }) => offset).sort((a, b) => a - b)).toEqual([
    0, 1, 2, 3, 4, 5, 6, 7, 8, 9,
  ]);
});
