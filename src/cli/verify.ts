/**
 * The command `verify`: the topic against the table, as a table of counts and the first offsets of each kind.
 * Imports: clickhouse/verify, config, stores, tools.
 */
import type { Extent } from '../clickhouse/verify/provenance-scan.js';
import type { CheckedConfig } from '../config/config.js';
import { keepsState, openStateAccess } from '../stores/stores.js';
import type { Found } from '../tools/offset-runs.js';
import {
  outcomeOf,
  verify,
  type Outcome,
  type PartitionVerdict,
  type Verdict,
  type VerifyOptions,
} from '../tools/verify.js';
import { absent, offsetsText, plural, rangeText, table, wrap } from './text.js';

const exitCodes: Readonly<Record<Outcome, number>> = { clean: 0, differs: 5, incomplete: 8 };

export async function verifyCommand(
  config: CheckedConfig,
  { json = false, ...options }: VerifyOptions & { readonly json?: boolean },
): Promise<number> {
  const access = keepsState(config) ? openStateAccess(config) : undefined;
  try {
    const verdict = await verify(config, access, options);
    const outcome = outcomeOf(verdict);
    console.log(json ? JSON.stringify({ clean: outcome === 'clean', outcome, ...verdict }) : verifyText(verdict));
    return exitCodes[outcome];
  } finally {
    await access?.close();
  }
}

export function verifyText(verdict: Verdict): string {
  const { partitions } = verdict;
  const right = { align: 'right' } as const;
  const counts = table(
    [
      { title: 'topic' },
      { title: 'partition', ...right },
      { title: 'offsets' },
      { title: 'records', ...right },
      { title: 'missing', ...right },
      { title: 'doubled', ...right },
      { title: 'not in topic', ...right },
    ],
    partitions.map(({ topic, partition, range, why, records, missing, doubled, unexpected }) =>
      range === undefined
        ? [topic, String(partition), why ?? absent, absent, absent, absent, absent]
        : [
            topic,
            String(partition),
            rangeText(range),
            String(records),
            String(missing.count),
            String(doubled.count),
            String(unexpected.count),
          ],
    ),
  );
  const details = partitions.flatMap(detailsOf).map((text) => wrap(text));
  const notes = [
    ...verdict.notes,
    ...Object.entries(verdict.notCompared)
      .filter(([, list]) => list.length > 0)
      .map(notComparedText),
  ];
  return [
    counts,
    ...(details.length === 0 ? [] : [details.join('\n')]),
    ...notes.map((note) => wrap(`Note: ${note}.`)),
    summary(verdict),
  ].join('\n\n');
}

function notComparedText([into, columns]: [string, Verdict['notCompared'][string]]): string {
  return `not compared in ${into}: ${columns.map(({ column, why }) => `${column} (${why})`).join(', ')}`;
}

function detailsOf(verdict: PartitionVerdict): string[] {
  const { topic, partition, table: into, missing, doubled, unexpected, beyond, gone, unreadable, damages } = verdict;
  const place = `${topic}/${partition}`;
  return [
    ...(missing.count === 0 ? [] : [`${place}: MISSING in ${into}: ${named(missing)}${beginningText(verdict)}`]),
    ...(doubled.count === 0 ? [] : [`${place}: DOUBLED in ${into}: ${named(doubled)}`]),
    ...(unexpected.count === 0 ? [] : [`${place}: NOT IN THE TOPIC, but in ${into}: ${named(unexpected)}`]),
    ...(beyond === undefined
      ? []
      : [
          `${place}: ${into} has rows up to offset ${beyond}, which the log has not reached: the topic was ` +
            'recreated or truncated, or another program writes there',
        ]),
    ...(unreadable === 0
      ? []
      : [
          `${place}: UNREADABLE in the topic: ${plural(unreadable, 'offset')}, which were not compared: ` +
            `${damages.join('; ')}`,
        ]),
    ...(gone === 0
      ? []
      : [
          `${place}: retention took ${plural(gone, 'offset')} while they were about to be read; they were not compared`,
        ]),
    ...contentsText(verdict),
    ...outsideText(verdict),
  ];
}

function named({ count, first }: Found): string {
  return `${first.join(', ')}${count > first.length ? `, … (${count - first.length} more)` : ''}`;
}

/** Whoever began in the middle of the log has no rows of what was before it, and may not know why. */
function beginningText({ range, missing, stored }: PartitionVerdict): string {
  if (
    range === undefined ||
    missing.first[0] !== range.first ||
    stored?.first === undefined ||
    stored.first <= range.first
  )
    return '';
  return `; the first offset with a row is ${stored.first}: if the group began there, say --from-offset ${stored.first}`;
}

function contentsText({ topic, partition, table: into, contents }: PartitionVerdict): string[] {
  if (contents === undefined) return [];
  const { differing, unread } = contents;
  const more = (count: number, shown: number) => (count > shown ? `, … (${count - shown} more)` : '');
  const columns = differing.first.map((each) => `${each.offset} (${each.columns.join(', ')})`).join(', ');
  const reasons = unread.first.map((each) => `${each.offset}: ${each.reason}`).join('; ');
  return [
    ...(differing.count === 0
      ? []
      : [
          `${topic}/${partition}: OTHER CONTENTS in ${into} than in the topic: ` +
            `${columns}${more(differing.count, differing.first.length)}`,
        ]),
    ...(unread.count === 0
      ? []
      : [
          `${topic}/${partition}: CONTENTS NOT COMPARED: ClickHouse cannot read ${plural(unread.count, 'record')} ` +
            `with the columns of ${into} as they are now: ` +
            `${reasons}${more(unread.count, unread.first.length)}`,
        ]),
  ];
}

function outsideText({
  topic,
  partition,
  table: into,
  range,
  before,
  unsettled,
  unrecorded,
}: PartitionVerdict): string[] {
  const place = `${topic}/${partition}`;
  const rows = ({ rows: count, first, last }: Extent) => `${plural(count, 'row')} of ${offsetsText({ first, last })}`;
  return [
    ...(unrecorded === undefined
      ? []
      : [
          `${place}: ${into} has ${rows(unrecorded)}, which are neither settled nor in doubt: another group or ` +
            'program has inserted them, or the state is not the one they were inserted under',
        ]),
    ...(unsettled === undefined
      ? []
      : [`${place}: ${into} has ${rows(unsettled)}, which are not settled yet; they were not compared`]),
    ...(before === undefined
      ? []
      : [
          `${place}: ${into} has ${rows(before)}, ` +
            `${range === undefined ? 'which were not compared' : `before ${range.first}, where the comparison begins; they were not compared`}`,
        ]),
  ];
}

function summary(verdict: Verdict): string {
  const { partitions } = verdict;
  const records = partitions.reduce((sum, each) => sum + each.records, 0);
  const compared = partitions.filter(({ range }) => range !== undefined).length;
  const left = partitions.filter(({ range, isEmpty }) => range === undefined && !isEmpty).length;
  const what = `${plural(records, 'record')} of ${plural(compared, 'partition')} compared`;
  const without = left === 0 ? '' : ` Of ${plural(left, 'partition')} with records nothing was compared.`;
  switch (outcomeOf(verdict)) {
    case 'differs':
      return `${what}: the table differs from the topic.${without}`;
    case 'clean':
      return (
        `${what}: every one is in the table exactly ` +
        `once${partitions.some(({ contents }) => contents !== undefined) ? ', with what it says' : ''}.`
      );
    case 'incomplete':
      return records === 0
        ? `Nothing was compared, so nothing can be said of the table.${without}`
        : `${what}, and each of them is in the table exactly once.${without}`;
  }
}
