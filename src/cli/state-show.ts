/**
 * The command `state show`: what is known of each partition, as a table or as JSON.
 * Imports: config, errors, kafka, model, stores, tools.
 */
import type { CheckedConfig } from '../config/config.js';
import { errorCodes, type ErrorCode } from '../errors.js';
import { transactionText } from '../kafka/open-transactions.js';
import { resumeOffset, type HaltNote, type PartitionState } from '../model/state.js';
import { openStateAccess } from '../stores/stores.js';
import { heldBackOf, lagOf, look, type PipelineStatus, type PartitionStatus, type Selection } from '../tools/status.js';
import { absent, durationText, plural, rangeText, table, wrap } from './text.js';

export async function stateShow(
  config: CheckedConfig,
  options: Selection & { readonly json?: boolean },
): Promise<number> {
  const access = openStateAccess(config);
  try {
    const found = await look(config, access, options);
    console.log(
      options.json === true ? JSON.stringify(stateJson(found, access.name, Date.now())) : stateText(found, Date.now()),
    );
    return 0;
  } finally {
    await access.close();
  }
}

export function stateText({ partitions, group, members, transactions }: PipelineStatus, nowMs: number): string {
  const rows = partitions.map((at) => {
    const state = at.stored?.state;
    const doubt = (state?.pending ?? []).map(
      (intent) =>
        `${rangeText(intent)} (${durationText(nowMs - intent.atMs)}${intent.token === undefined ? '' : ', imported'})`,
    );
    const inDoubt = state === undefined ? 'no state' : doubt.length === 0 ? absent : doubt.join('\n');
    return [
      at.topic,
      String(at.partition),
      settledText(state),
      inDoubt,
      String(at.committed ?? absent),
      String(at.logEnd),
      String(lagOf(at)),
      state === undefined ? absent : String(state.incarnation),
      at.stored?.owner ?? absent,
    ];
  });
  const right = { align: 'right' } as const;
  const text = table(
    [
      { title: 'topic' },
      { title: 'partition', ...right },
      { title: 'settled', ...right },
      { title: 'in doubt' },
      { title: 'committed', ...right },
      { title: 'log end', ...right },
      { title: 'lag', ...right },
      { title: 'incarnation', ...right },
      { title: 'owner' },
    ],
    rows,
  );
  const held = partitions.filter((at) => heldBackOf(at) > 0).map((at) => wrap(heldText(at, transactions, nowMs)));
  const halts = partitions.flatMap(({ topic, partition, stored }) =>
    stored?.state.halted === undefined ? [] : [wrap(`${topic}/${partition}: ${haltText(stored.state.halted, nowMs)}`)],
  );
  const whereText = partitions.flatMap((at) => overriddenText(at, members.length > 0)).map((line) => wrap(line));
  return [
    text,
    ...halts,
    ...whereText,
    ...held,
    `${totalsText(partitions, nowMs)}; group ${group} has ${plural(members.length, 'member')}`,
  ].join('\n\n');
}

function haltText({ code, atMs, heals }: HaltNote, nowMs: number): string {
  const means = Object.hasOwn(errorCodes, code) ? ` (${errorCodes[code as ErrorCode].means})` : '';
  const todo = heals
    ? 'It heals by itself once that is mended from outside: run tries again at the latest every heal.maxDelayMs.'
    : 'It waits for a person: the log of run names the offsets and what to do.';
  return `HALTED since ${new Date(atMs).toISOString()} (${durationText(nowMs - atMs)}), ${code}${means}. ${todo}`;
}

/** A group that was set elsewhere by hand changes nothing: people wonder why. */
function overriddenText({ topic, partition, committed, stored }: PartitionStatus, isAtWork: boolean): string[] {
  const resume = stored === undefined ? undefined : resumeOffset(stored.state);
  if (resume === undefined || committed === undefined || committed === resume) return [];
  const where = `${topic}/${partition}: the group says ${committed}, the state says ${resume}`;
  // While members are at work the group lags behind the state by a batch or two.
  if (committed < resume && isAtWork) return [];
  return [
    committed > resume && stored?.state.isOffsetReused !== true
      ? `${where}: it is behind the group, and run halts the partition (KCR_STATE_BEHIND).`
      : `${where}: run goes on at ${resume}.`,
  ];
}

function heldText(
  { topic, partition, stableEnd, logEnd }: PartitionStatus,
  transactions: PipelineStatus['transactions'],
  nowMs: number,
): string {
  const open = transactions.find((each) => each.topic === topic && each.partition === partition);
  const by = open === undefined ? 'an open transaction' : transactionText(open, nowMs);
  return (
    `${topic}/${partition}: offsets ${rangeText({ first: stableEnd, last: logEnd - 1 })} cannot be read yet: ` +
    `held back by ${by}.`
  );
}

function settledText(state: PartitionState | undefined): string {
  return state?.settled === -1 ? 'none' : String(state?.settled ?? absent);
}

function totalsText(partitions: readonly PartitionStatus[], nowMs: number): string {
  const { withoutState, inDoubt, lag, held, halted } = totals(partitions);
  const oldestMs = inDoubt.reduce((oldest, { atMs }) => Math.min(oldest, atMs), Infinity);
  const offsets = inDoubt.reduce((sum, { first, last }) => sum + last - first + 1, 0);
  return [
    `${plural(partitions.length, 'partition')}${withoutState === 0 ? '' : ` (${withoutState} without a state)`}`,
    inDoubt.length === 0
      ? 'nothing in doubt'
      : `${plural(inDoubt.length, 'range')} in doubt (${plural(offsets, 'offset')}, the oldest ` +
        `${durationText(nowMs - oldestMs)})`,
    ...(halted === 0 ? [] : [`${halted} halted`]),
    `lag ${lag}${held === 0 ? '' : `, of which ${held} cannot be read yet`}`,
  ].join(', ');
}

function totals(partitions: readonly PartitionStatus[]) {
  return {
    withoutState: partitions.filter(({ stored }) => stored === undefined).length,
    inDoubt: partitions.flatMap(({ stored }) => stored?.state.pending ?? []),
    lag: partitions.reduce((sum, at) => sum + lagOf(at), 0),
    held: partitions.reduce((sum, at) => sum + heldBackOf(at), 0),
    halted: partitions.filter(({ stored }) => stored?.state.halted !== undefined).length,
  };
}

export function stateJson(
  { cluster, group, members, transactions, partitions }: PipelineStatus,
  store: string,
  nowMs: number,
): unknown {
  const { withoutState, inDoubt, lag, held, halted } = totals(partitions);
  return {
    cluster,
    group,
    store,
    members: members.length,
    transactions,
    partitions: partitions.map((at) => {
      const { topic, partition, stored, committed, logStart, logEnd } = at;
      const state = stored?.state;
      return {
        topic,
        partition,
        hasState: state !== undefined,
        settled: state?.settled ?? null,
        inDoubt: (state?.pending ?? []).map((intent) => ({ ...intent, ageMs: nowMs - intent.atMs })),
        halted: state?.halted === undefined ? null : { ...state.halted, ageMs: nowMs - state.halted.atMs },
        incarnation: state?.incarnation ?? null,
        topicId: state?.topicId ?? null,
        owner: stored?.owner ?? null,
        committed: committed ?? null,
        logStart,
        logEnd,
        stableEnd: at.stableEnd,
        lag: lagOf(at),
        heldBack: heldBackOf(at),
      };
    }),
    totals: { partitions: partitions.length, withoutState, inDoubt: inDoubt.length, halted, lag, heldBack: held },
  };
}
