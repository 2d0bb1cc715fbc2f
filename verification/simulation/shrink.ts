// Room: a failing scenario made short: what can be left out of it.
import { shrinkBy, type Shrunk } from './campaign.js';
import { play, type PlayOptions } from './play.js';
import type { Scenario } from './scenario.js';

export function shrink(scenario: Scenario, options: PlayOptions = {}, most = 600): Promise<Shrunk<Scenario>> {
  return shrinkBy(scenario, (one) => play(one, options), shorter, most);
}

export function* shorter(scenario: Scenario): Generator<Scenario> {
  const { happenings, lives, records } = scenario;
  for (let i = 0; i < happenings.length; i++) yield { ...scenario, happenings: without(happenings, i) };
  for (let i = 0; i < lives.length; i++) {
    const left = happenings
      .filter((one) => !('life' in one) || one.life !== i)
      .map((one) => ('life' in one && one.life > i ? { ...one, life: one.life - 1 } : one));
    yield { ...scenario, lives: without(lives, i), happenings: left };
    const life = lives[i]!;
    for (let f = 0; f < life.faults.length; f++)
      yield { ...scenario, lives: lives.with(i, { ...life, faults: without(life.faults, f) }) };
  }
  for (let p = 0; p < records.length; p++) {
    if (p === records.length - 1 && records.length > 1)
      yield {
        ...scenario,
        records: without(records, p),
        happenings: happenings.filter((one) => !('partition' in one) || one.partition !== p),
      };
    const count = records[p]!;
    if (count > 1) yield { ...scenario, records: records.with(p, count >> 1) };
    if (count > 0) yield { ...scenario, records: records.with(p, count - 1) };
  }
  if (scenario.truncation !== undefined) yield { ...scenario, truncation: undefined };
  if (scenario.tombstoneEvery !== 0) yield { ...scenario, tombstoneEvery: 0 };
  if (scenario.refusesLate === true) yield { ...scenario, refusesLate: false };
  if (scenario.poisonEvery !== 0) yield { ...scenario, poisonEvery: 0 };
  if (scenario.spread !== 1) yield { ...scenario, spread: 1 };
  if (scenario.views.length > 0) yield { ...scenario, views: [] };
  if (scenario.dedupWindowMs !== 0) yield { ...scenario, dedupWindowMs: 0 };
  if (lives.some(({ asyncInserts }) => asyncInserts))
    yield { ...scenario, lives: lives.map((life) => ({ ...life, asyncInserts: false })) };
  if (scenario.maxPending !== 1) yield { ...scenario, maxPending: 1 };
  for (let i = 0; i < lives.length; i++) {
    const life = lives[i]!;
    if (life.batch.bytes < 10_000)
      yield { ...scenario, lives: lives.with(i, { ...life, batch: { ...life.batch, bytes: 10_000 } }) };
    if (life.room !== Infinity) yield { ...scenario, lives: lives.with(i, { ...life, room: Infinity }) };
    if (life.chunkSize !== 3) yield { ...scenario, lives: lives.with(i, { ...life, chunkSize: 3 }) };
    if (life.startMs !== 0) yield { ...scenario, lives: lives.with(i, { ...life, startMs: life.startMs >> 1 }) };
  }
}

function without<T>(list: readonly T[], index: number): T[] {
  return list.filter((_, i) => i !== index);
}
