// Ports of one's own, each written in an afternoon: a state store in files, and a sink that writes newline-delimited JSON.
// examples/own-ports.test.ts holds them to the contracts that ship in kafka-clickhouse-rx/testing.
import { constants } from 'node:fs';
import { copyFile, mkdir, readFile, readdir, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import {
  IngestError,
  decodeState,
  emptyState,
  encodeState,
  type Claim,
  type InsertBatch,
  type PartitionState,
  type StateKey,
  type StateStore,
  type StoredState,
  type VerifiableSink,
} from 'kafka-clickhouse-rx';
import { defer } from 'rxjs';

const safe = (name: string) => encodeURIComponent(name).replaceAll('.', '%2E');

/** One file a batch, named by its token: the same batch is the same file, however often it is written. */
export function ndjsonSink(folder: string): VerifiableSink {
  const fileOf = ({ token, assignment, afterOffset, lastOffset }: InsertBatch) =>
    join(
      folder,
      `${safe(token ?? `${assignment.topic}:${assignment.partition}:${afterOffset + 1}-${lastOffset}`)}.ndjson`,
    );
  const exists = (file: string) =>
    readFile(file).then(
      () => true,
      () => false,
    );
  return {
    insert: (batch) =>
      defer(async () => {
        const { topic, partition } = batch.assignment;
        const lines = batch.records
          .map(({ offset, value }) => `${JSON.stringify({ topic, partition, offset, value: String(value) })}\n`)
          .join('');
        await mkdir(folder, { recursive: true });
        // All of it or nothing: the file is there under its name only when it is whole.
        const unfinished = `${fileOf(batch)}.${process.pid}`;
        await writeFile(unfinished, lines);
        await rename(unfinished, fileOf(batch));
        return { rows: batch.records.length, bytes: Buffer.byteLength(lines) };
      }),
    verification: {
      look: (batch) =>
        defer(async () => ({
          missing: (await exists(fileOf(batch))) ? [] : batch.records.map(({ offset }) => offset),
          doubled: [],
        })),
    },
  };
}

/** What a claim remembers: the number of the file that holds it, and how it is written. */
interface Mark {
  readonly number: number;
  readonly write: string;
}

/**
 * One folder a partition; each state is a file with the next number, and the last one counts. A file that is there already
 * cannot be made again: that is the compare-and-set. (Old files are left; a store for daily use would remove them.)
 */
export function fileStore(folder: string): StateStore {
  const folderOf = ({ cluster, group, topic, partition }: StateKey) =>
    join(folder, safe(cluster), safe(group), safe(topic), String(partition));

  async function last(key: StateKey): Promise<{ readonly number: number; readonly stored: StoredState | undefined }> {
    const names = await readdir(folderOf(key)).catch(() => []);
    const number = names.filter((name) => /^\d+$/.test(name)).reduce((most, name) => Math.max(most, Number(name)), 0);
    return {
      number,
      stored: number === 0 ? undefined : decodeState(await readFile(join(folderOf(key), String(number)), 'utf8'), key),
    };
  }

  /** False when the number is taken. */
  async function put(key: StateKey, number: number, stored: StoredState): Promise<boolean> {
    await mkdir(folderOf(key), { recursive: true });
    const unfinished = join(folderOf(key), `${process.pid}-${Math.random()}`);
    await writeFile(unfinished, encodeState(stored, key));
    try {
      await copyFile(unfinished, join(folderOf(key), String(number)), constants.COPYFILE_EXCL);
      return true;
    } catch (thrown) {
      if ((thrown as NodeJS.ErrnoException).code === 'EEXIST') return false;
      throw new IngestError('KCR_STORE_UNREACHABLE', `The state could not be written: ${String(thrown)}`, {
        cause: thrown,
      });
    } finally {
      await rm(unfinished, { force: true });
    }
  }

  async function claim(key: StateKey, owner: string): Promise<Claim> {
    for (;;) {
      const { number, stored } = await last(key);
      const state = stored?.state ?? emptyState;
      const write = `${number + 1}-0`;
      if (await put(key, number + 1, { state, owner, write }))
        return { key, owner, state, version: { number: number + 1, write } satisfies Mark };
    }
  }

  async function write({ key, owner, version }: Claim, state: PartitionState): Promise<Claim> {
    const { number, write: before } = version as Mark;
    const [writer, count] = before.split('-');
    const next: Mark = { number: number + 1, write: `${writer}-${Number(count) + 1}` };
    const stored: StoredState = { state, owner, write: next.write };
    if (!(await put(key, next.number, stored))) {
      // It may be this very write, whose answer was lost.
      const current = await last(key);
      const isOurs =
        current.number === next.number &&
        current.stored !== undefined &&
        encodeState(current.stored, key) === encodeState(stored, key);
      if (!isOurs)
        throw new IngestError('KCR_FENCED', `${current.stored?.owner} has claimed the partition`, {
          topic: key.topic,
          partition: key.partition,
        });
    }
    return { key, owner, state, version: next };
  }

  return {
    name: 'files',
    claim: (key, owner) => defer(() => claim(key, owner)),
    write: (held, state) => defer(() => write(held, state)),
    read: (key) =>
      defer(async () => {
        const { stored } = await last(key);
        return { state: stored?.state ?? emptyState, owner: stored?.owner };
      }),
    close: () => Promise.resolve(),
  };
}
