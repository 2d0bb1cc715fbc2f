/**
 * The command `drain`: resolves what is in doubt, says what became of it, and lists what is left.
 * Imports: Node, config, errors, events, stores, tools.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { CheckedConfig } from '../config/config.js';
import { errorCodes } from '../errors.js';
import type { IngestEvent } from '../events.js';
import { openStateAccess } from '../stores/stores.js';
import { drain, type Drained } from '../tools/drain.js';
import { look, type PipelineStatus, type PartitionStatus } from '../tools/status.js';
import { exitCodeOnceBegun } from './tally.js';
import { durationText, plural, rangeText, wrap } from './text.js';

export interface DrainCommandOptions {
  readonly timeout: number;
  readonly json?: boolean;
}

export async function drainCommand(
  config: CheckedConfig,
  { timeout, json = false }: DrainCommandOptions,
): Promise<number> {
  const endMs = performance.now() + timeout * 1000;
  const access = openStateAccess(config);
  try {
    const drained = await drain(config, { timeoutMs: timeout * 1000, onEvent: tellOnce() });
    const after = await lookInTime(look(config, access), drained.isLate, endMs);
    const left = after?.partitions.filter((at) => inDoubt(at).length > 0);
    console.log(json ? JSON.stringify(drainJson(drained, left)) : drainText(drained, after, left ?? [], Date.now()));
    return exitCodeOf({ ...drained, isLate: drained.isLate || left === undefined }, left ?? []);
  } finally {
    await access.close();
  }
}

const LATE_LOOK_MS = 2000;

/** Late or not, what is left is looked at; but when nobody answers, not for long. */
async function lookInTime(
  looking: Promise<PipelineStatus>,
  isLate: boolean,
  endMs: number,
): Promise<PipelineStatus | undefined> {
  const limit = new AbortController();
  const late = sleep(Math.max(LATE_LOOK_MS, endMs - performance.now()), undefined, { signal: limit.signal });
  late.catch(() => undefined);
  try {
    return await Promise.race([isLate ? looking.catch(() => undefined) : looking, late]);
  } finally {
    limit.abort();
  }
}

const inDoubt = ({ stored }: PartitionStatus) => stored?.state.pending ?? [];

/** Troubles on the way, for who waits: a server that does not answer. Once for each call: others have it too. */
function tellOnce(): (event: IngestEvent) => void {
  const told = new Set<string>();
  return (event) => {
    if (event.kind !== 'retry' || event.attempt !== 3 || told.has(event.call)) return;
    told.add(event.call);
    console.error(
      `${event.assignment.topic}/${event.assignment.partition}: ${event.call} failed and is tried again: ${event.error.detail}`,
    );
  };
}

/** A halted partition says more than the time-out that may have followed. */
export function exitCodeOf({ halted, isLate }: Pick<Drained, 'halted' | 'isLate'>, left: readonly unknown[]): number {
  const [first] = halted;
  if (first !== undefined) return exitCodeOnceBegun(first.error.code);
  if (isLate) return errorCodes.KCR_DRAIN_TIMEOUT.exitCode;
  return left.length === 0 ? 0 : 5;
}

export function drainText(
  { resolved, given, halted, isLate }: Drained,
  after: PipelineStatus | undefined,
  left: readonly PartitionStatus[],
  nowMs: number,
): string {
  const lines = resolved.map(({ assignment, afterOffset, lastOffset, rows }) => {
    const range = rangeText({ first: afterOffset + 1, last: lastOffset });
    return `${assignment.topic}/${assignment.partition}: ${range} was in doubt and is settled (${plural(rows, 'row')} sent; what had landed before was not doubled)`;
  });
  const halts = halted.map(({ topic, partition, error }) =>
    wrap(`${topic}/${partition}: HALTED: ${error.code}: ${error.message}`),
  );
  if (after === undefined)
    return [
      ...lines,
      ...halts,
      'Time was up before everything was resolved, and what is left could not be looked at: no answer.',
    ].join('\n');
  const { partitions, members } = after;
  const mine = `${plural(given.length, 'partition')} of ${partitions.length} looked after by this process, ${plural(resolved.length, 'range')} resolved`;
  const others =
    given.length >= partitions.length
      ? ''
      : `; ${members.length === 0 ? 'the others were not assigned to it' : `the others belong to ${plural(members.length, 'other member')} of the group, which resolve their own: stop them, then drain again`}`;
  const rest = left.flatMap((at) =>
    inDoubt(at).map(
      (intent) =>
        `${at.topic}/${at.partition}: ${rangeText(intent)} is STILL IN DOUBT (${durationText(nowMs - intent.atMs)} old, owner ${at.stored?.owner ?? 'unknown'})`,
    ),
  );
  const end = isLate ? 'Time was up before everything was resolved.' : left.length === 0 ? 'Nothing is in doubt.' : '';
  return [...lines, ...halts, wrap(`${mine}${others}.`), ...rest, ...(end === '' ? [] : [end])].join('\n');
}

function drainJson(
  { resolved, given, halted, isLate }: Drained,
  left: readonly PartitionStatus[] | undefined,
): unknown {
  return {
    resolved: resolved.map(({ assignment: { topic, partition }, afterOffset, lastOffset, rows }) => ({
      topic,
      partition,
      first: afterOffset + 1,
      last: lastOffset,
      rows,
    })),
    given,
    halted: halted.map(({ topic, partition, error }) => ({
      topic,
      partition,
      code: error.code,
      message: error.message,
    })),
    // null: it could not be looked at in time.
    inDoubt:
      left === undefined
        ? null
        : left.flatMap((at) =>
            inDoubt(at).map(({ first, last, atMs }) => ({
              topic: at.topic,
              partition: at.partition,
              first,
              last,
              atMs,
              owner: at.stored?.owner ?? null,
            })),
          ),
    timedOut: isLate,
  };
}
