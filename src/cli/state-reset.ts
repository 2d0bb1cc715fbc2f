/**
 * The command `state reset`: what it would mean, in words, and with --apply done.
 * Imports: Node, config, errors, stores, tools.
 */
import { hostname } from 'node:os';
import type { CheckedConfig } from '../config/config.js';
import { IngestError } from '../errors.js';
import { openStateAccess, type StateAccess } from '../stores/stores.js';
import { look, type PipelineStatus, type Selection } from '../tools/status.js';
import { applyReset, planReset, type ResetPlan, type ResetTarget } from '../tools/reset.js';
import { durationText, offsetsText, rangeText, wrap } from './text.js';

export interface StateResetOptions extends Selection {
  readonly toOffset?: number;
  readonly toBeginning?: boolean;
  readonly toEnd?: boolean;
  readonly toCommitted?: boolean;
  readonly apply?: boolean;
  readonly json?: boolean;
}

export async function stateReset(config: CheckedConfig, options: StateResetOptions): Promise<number> {
  const target = targetOf(options);
  const access = openStateAccess(config);
  try {
    const found = await look(config, access, options);
    demandOnePartition(found, target);
    // All are planned before one is written: an offset that one log does not hold leaves every state as it is.
    const plans = found.partitions.map((at) => planReset(at, target));
    const done = options.apply === true ? await applyAll(access, found, target) : plans;
    console.log(
      options.json === true
        ? JSON.stringify(resetJson(done, options.apply === true))
        : resetText(done, found, options.apply === true, Date.now()),
    );
    return 0;
  } finally {
    await access.close();
  }
}

/** @throws `KCR_CONFIG` unless exactly one target was given. */
export function targetOf({ toOffset, toBeginning, toEnd, toCommitted }: StateResetOptions): ResetTarget {
  const targets: ResetTarget[] = [
    ...(toOffset === undefined ? [] : [{ kind: 'offset', offset: toOffset } as const]),
    ...(toBeginning === true ? [{ kind: 'beginning' } as const] : []),
    ...(toEnd === true ? [{ kind: 'end' } as const] : []),
    ...(toCommitted === true ? [{ kind: 'committed' } as const] : []),
  ];
  const [target] = targets;
  if (target !== undefined && targets.length === 1) return target;
  throw new IngestError(
    'KCR_CONFIG',
    `Expected one of --to-offset, --to-beginning, --to-end and --to-committed, got ${targets.length}`,
  );
}

/** @throws `KCR_CONFIG`: an offset means something in one partition only. */
export function demandOnePartition({ partitions }: Pick<PipelineStatus, 'partitions'>, target: ResetTarget): void {
  if (target.kind !== 'offset' || partitions.length === 1) return;
  throw new IngestError(
    'KCR_CONFIG',
    `--to-offset names an offset of one partition, and ${partitions.length} partitions are meant`,
    {
      hint: 'add --topic and --partition',
    },
  );
}

async function applyAll(
  access: StateAccess,
  { partitions }: PipelineStatus,
  target: ResetTarget,
): Promise<ResetPlan[]> {
  const done: ResetPlan[] = [];
  for (const at of partitions)
    done.push(await applyReset(access, at, target, `${hostname()}:${process.pid}:state-reset`));
  return done;
}

export function resetText(
  plans: readonly ResetPlan[],
  { members, group }: Pick<PipelineStatus, 'members' | 'group'>,
  isApplied: boolean,
  nowMs: number,
): string {
  const parts = plans.map((plan) =>
    [
      `${plan.at.topic}/${plan.at.partition}: ${headline(plan)}`,
      ...meaning(plan, isApplied, nowMs).map((text) => wrap(text, { indent: '  ' })),
    ].join('\n'),
  );
  const running =
    members.length === 0
      ? []
      : [
          `Group ${group} has ${members.length === 1 ? 'a member' : `${members.length} members`}. A process that ` +
            `runs ${isApplied ? 'was' : 'will be'} fenced: what it has under way may still land, then ` +
            'it claims the partition again and goes on at the new offset. Stop it first where rows ' +
            'must not double.',
        ];
  const end = isApplied ? 'Done.' : 'Nothing was changed. Add --apply to do it.';
  return [...parts, ...running.map((text) => wrap(text)), end].join('\n\n');
}

function headline({ before, to, after }: ResetPlan): string {
  const from =
    before.settled === undefined && before.pending.length === 0 ? 'no state' : `settled ${before.settled ?? 'nothing'}`;
  return `${from} → goes on at offset ${to}, incarnation ${before.incarnation} → ${after.incarnation}`;
}

/** Sentences, the gravest first. */
export function meaning(plan: ResetPlan, isApplied: boolean, nowMs: number): string[] {
  const { skipped, perhapsLost, twice, perhapsTwice, forgotten } = plan;
  const are = isApplied ? 'are' : 'would be';
  const words: string[] = [];
  if (skipped !== undefined)
    words.push(`LOST: ${offsetsText(skipped)} (${count(skipped)}) ${are} skipped and never ingested`);
  if (perhapsLost !== undefined)
    words.push(
      `PERHAPS LOST: ${offsetsText(perhapsLost)} (${count(perhapsLost)}) ${are} skipped while in doubt: in the ` +
        'table only if their insert landed',
    );
  if (twice !== undefined)
    words.push(
      `TWICE: ${offsetsText(twice)} (${count(twice)}) ${are} ingested again under new tokens: rows of them that ` +
        'the table has are then there twice',
    );
  if (perhapsTwice !== undefined)
    words.push(
      `PERHAPS TWICE: ${offsetsText(perhapsTwice)} (${count(perhapsTwice)}) ${are} ingested again while in doubt: ` +
        'twice in the table if their insert landed',
    );
  for (const intent of forgotten)
    words.push(
      `forgotten: ${rangeText(intent)} was in doubt (${durationText(nowMs - intent.atMs)} old, into ` +
        `${intent.tables.join(', ')})`,
    );
  if (words.length === 0) words.push('no row is lost or doubled by it');
  return words;
}

function count({ first, last }: { readonly first: number; readonly last: number }): number {
  return last - first + 1;
}

function resetJson(plans: readonly ResetPlan[], isApplied: boolean): unknown {
  const orNull = <T>(value: T | undefined): T | null => value ?? null;
  return {
    applied: isApplied,
    partitions: plans.map(({ at, to, before, after, owner, forgotten, twice, perhapsTwice, skipped, perhapsLost }) => ({
      topic: at.topic,
      partition: at.partition,
      to,
      settledBefore: orNull(before.settled),
      incarnation: after.incarnation,
      owner: orNull(owner),
      forgotten,
      twice: orNull(twice),
      perhapsTwice: orNull(perhapsTwice),
      skipped: orNull(skipped),
      perhapsLost: orNull(perhapsLost),
    })),
  };
}
