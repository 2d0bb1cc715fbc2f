/**
 * Room: the command `verify`: the topic against the table, as a table of counts and the first offsets of each kind.
 */
import type { CheckedConfig } from '../config.js';
import { openStateAccess } from '../tools/access.js';
import type { Found } from '../tools/offset-runs.js';
import { isClean, verify, type PartitionVerdict, type Verdict, type VerifyOptions } from '../tools/verify.js';
import { absent, plural, rangeText, table, wrap } from './text.js';

export async function verifyCommand(config: CheckedConfig, { json = false, ...options }: VerifyOptions & { readonly json?: boolean }): Promise<number> {
  const hasState = config.delivery === 'exactly-once' && config.state !== undefined && config.state.store !== 'memory';
  const access = hasState ? openStateAccess(config) : undefined;
  try {
    const verdict = await verify(config, access, options);
    console.log(json ? JSON.stringify({ clean: isClean(verdict), ...verdict }) : verifyText(verdict));
    return isClean(verdict) ? 0 : 5;
  } finally {
    await access?.close();
  }
}

export function verifyText(verdict: Verdict): string {
  const { partitions, notes } = verdict;
  const right = { align: 'right' } as const;
  const counts = table(
    [
      { title: 'topic' }, { title: 'partition', ...right }, { title: 'offsets' }, { title: 'records', ...right },
      { title: 'missing', ...right }, { title: 'doubled', ...right }, { title: 'not in topic', ...right },
    ],
    partitions.map(({ topic, partition, range, why, records, missing, doubled, unexpected }) =>
      range === undefined
        ? [topic, String(partition), why ?? absent, absent, absent, absent, absent]
        : [topic, String(partition), rangeText(range), String(records), String(missing.count), String(doubled.count), String(unexpected.count)],
    ),
  );
  const details = partitions.flatMap(detailsOf).map((text) => wrap(text));
  return [counts, ...(details.length === 0 ? [] : [details.join('\n')]), ...notes.map((note) => wrap(`Note: ${note}.`)), summary(verdict)].join('\n\n');
}

function detailsOf({ topic, partition, table: into, missing, doubled, unexpected, beyond, gone, unreadable, damages }: PartitionVerdict): string[] {
  const place = `${topic}/${partition}`;
  const named = ({ count, first }: Found) => `${first.join(', ')}${count > first.length ? `, … (${count - first.length} more)` : ''}`;
  return [
    ...(missing.count === 0 ? [] : [`${place}: MISSING in ${into}: ${named(missing)}`]),
    ...(doubled.count === 0 ? [] : [`${place}: DOUBLED in ${into}: ${named(doubled)}`]),
    ...(unexpected.count === 0 ? [] : [`${place}: NOT IN THE TOPIC, but in ${into}: ${named(unexpected)}`]),
    ...(beyond === undefined ? [] : [`${place}: ${into} has rows up to offset ${beyond}, which the log has not reached: the topic was created anew or truncated, or another program writes there`]),
    ...(unreadable === 0 ? [] : [`${place}: UNREADABLE in the topic: ${plural(unreadable, 'offset')}, which were not compared: ${damages.join('; ')}`]),
    ...(gone === 0 ? [] : [`${place}: retention took ${plural(gone, 'offset')} while they were about to be read; they were not compared`]),
  ];
}

function summary(verdict: Verdict): string {
  const { partitions } = verdict;
  const records = partitions.reduce((sum, each) => sum + each.records, 0);
  const compared = partitions.filter(({ range }) => range !== undefined).length;
  const clean = `${plural(records, 'record')} of ${plural(compared, 'partition')} compared`;
  return isClean(verdict) ? `${clean}: every one is in the table exactly once.` : `${clean}: the table differs from the topic.`;
}
