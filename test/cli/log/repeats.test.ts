// One fact about many partitions is one line a while.
import { expect, test } from 'vitest';
import { Log } from '../../../src/cli/log/log.js';
import { outcomeLine, eventLine } from '../../../src/cli/log/lines.js';
import { Repeats } from '../../../src/cli/log/repeats.js';
import { IngestError } from '../../../src/errors.js';
import type { IngestEvent } from '../../../src/events.js';

const at = (partition: number, topic = 'flights') => ({ topic, partition });

test('G3: 300 partitions, 30 s of retries: seven lines, of which those that count name all partitions', () => {
  const repeats = new Repeats<string>();
  let written = 0;
  const counted: string[] = [];
  for (let ms = 0; ms <= 30_000; ms += 500) {
    for (let partition = 0; partition < 300; partition++) {
      if (repeats.isWritten('retry', `${ms}`, at(partition), 5, ms)) written += 1;
    }
    for (const { times, partitions, names } of repeats.due(ms)) counted.push(`${times} ${partitions} ${names}`);
  }
  expect(written).toBe(5);
  expect(counted).toEqual([`${21 * 300 - 5} 300 flights/0-299`, '12000 300 flights/0-299']);
});

test('G3: a kind that was silent for a while is told in full again', () => {
  const repeats = new Repeats<string>({ windowMs: 100, maxWindowMs: 100 });
  const tell = (ms: number) => repeats.isWritten('a', 'x', at(0), 1, ms);
  expect([
    tell(0),
    tell(1),
    repeats.due(100).length,
    tell(150),
    repeats.due(200).length,
    repeats.due(300).length,
    tell(301),
  ]).toEqual([true, false, 1, false, 1, 0, true]);
});

test('E5: what goes on for an hour is told later and later, up to every two minutes: no log is filled by one outage', () => {
  const repeats = new Repeats<string>();
  const toldS: number[] = [];
  for (let ms = 0; ms <= 3_600_000; ms += 1000) {
    repeats.isWritten('retry', 'x', at(0), 5, ms);
    for (const _ of repeats.due(ms)) toldS.push(ms / 1000);
  }
  expect(toldS.slice(0, 6)).toEqual([10, 30, 70, 150, 270, 390]);
  expect(toldS).toHaveLength(32);
});

test('the names of partitions are runs, and no endless list', () => {
  const names = (...places: readonly { topic: string; partition: number }[]) => {
    const repeats = new Repeats<string>();
    for (const place of places) repeats.isWritten('a', 'x', place, 0, 0);
    return repeats.due(Infinity)[0]?.names;
  };
  expect(names(at(3), at(1), at(2), at(7), at(0, 'other'), at(3))).toBe('flights/1-3, flights/7, other/0');
  expect(names(...Array.from({ length: 50 }, (_, i) => at(2 * i)))).toMatch(/^flights\/0, .*flights\/38, …$/);
});

const assignment = (partition: number) => ({
  ...at(partition),
  assignmentId: partition,
  generation: 1,
  startOffset: 0,
  topicId: undefined,
});
const retry = (partition: number): IngestEvent => ({
  kind: 'retry',
  call: 'insert',
  assignment: assignment(partition),
  attempt: 1,
  delayMs: 100,
  error: new IngestError('KCR_INSERT_RETRIABLE', 'ClickHouse answered 503', at(partition)),
});

async function logged(level: string, tell: (log: Log) => void): Promise<readonly Record<string, unknown>[]> {
  let text = '';
  const log = new Log({ level, output: async (bytes) => ((text += Buffer.from(bytes).toString()), bytes.length) });
  tell(log);
  await log.close(5_000);
  return text
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, unknown>);
}

test('G3: the log tells the first lines of a kind, and what was counted at its end; kinds do not hide each other', async () => {
  const lines = await logged('info', (log) => {
    for (let partition = 0; partition < 300; partition++) log.line(eventLine(retry(partition)));
    log.line(eventLine({ kind: 'assigned', assignment: assignment(0) }));
    log.line(outcomeLine({ kind: 'halted', assignment: assignment(1), error: new IngestError('KCR_POISON', 'bad') }));
  });
  expect(lines.filter(({ msg }) => msg === 'retry')).toHaveLength(5);
  expect(lines.at(-1)).toMatchObject({
    msg: 'retry (as before, counted)',
    times: 295,
    partitions: 295,
    names: 'flights/5-299',
    code: 'KCR_INSERT_RETRIABLE',
  });
  expect(lines.map(({ msg }) => msg)).toEqual(
    expect.arrayContaining(['assigned', expect.stringMatching(/^partition halted/)]),
  );
});

test('of what happens again and again, be it good, a kind takes a screen of lines and no more', async () => {
  const lines = await logged('info', (log) => {
    for (let range = 0; range < 300; range++) {
      log.line(
        outcomeLine({
          kind: 'delivered',
          assignment: assignment(range % 4),
          afterOffset: range,
          lastOffset: range + 1,
          rows: 1,
          bytes: 1,
          replay: true,
        }),
      );
      log.line(
        outcomeLine({
          kind: 'halted',
          assignment: assignment(range % 4),
          error: new IngestError('KCR_INSERT_FATAL', 'refused'),
          healsInMs: 1000,
        }),
      );
    }
  });
  // The first ten of a kind, and one that counts the rest.
  expect(lines).toHaveLength(22);
});

test('who asks for debug gets every line', async () => {
  const lines = await logged('debug', (log) =>
    Array.from({ length: 300 }, (_, partition) => log.line(eventLine(retry(partition)))),
  );
  expect(lines).toHaveLength(300);
});

test('a record that is left out is told each time: it is nowhere else', async () => {
  const event: IngestEvent = {
    kind: 'excluded',
    assignment: assignment(0),
    record: undefined,
    error: new IngestError('KCR_POISON', 'bad', { offset: 1 }),
    replay: false,
  };
  expect(await logged('info', (log) => Array.from({ length: 200 }, () => log.line(eventLine(event))))).toHaveLength(
    200,
  );
});
