// Every answer of the module, of its twin and of JSON.parse about one value, held against each other.
import { type FaultKind, provenanceNames, type ReservedNames, twinFault, valueFault } from '../../src/kernel/index.js';
import { anyValue, isParsedObject, namesOf, type Random, seeded } from './values.js';

export interface Tally {
  readonly values: number;
  readonly accepted: number;
  /** How many values had each kind of fault. */
  readonly faults: ReadonlyMap<FaultKind, number>;
}

/** Throws for the first value that two of the three judge differently; the message holds the value and the seed. */
export function compareAll(seed: number, count: number): Tally {
  const random = seeded(seed);
  const faults = new Map<FaultKind, number>();
  let accepted = 0;
  for (let index = 0; index < count; index++) {
    const value = anyValue(random);
    const names = random() < 0.5 ? 0 : Math.floor(random() * 64);
    const kind = compareOne(value, names, random, `seed ${seed}, value ${index}`);
    if (kind === undefined) accepted += 1;
    else faults.set(kind, (faults.get(kind) ?? 0) + 1);
  }
  return { values: count, accepted, faults };
}

/** The value lies somewhere among other bytes, which must not matter. */
function compareOne(value: Buffer, names: ReservedNames, random: Random, where: string): FaultKind | undefined {
  const before = Math.floor(random() * 20);
  const data = Buffer.alloc(before + value.length + 20, '"}]\\,1e');
  value.copy(data, before);
  const end = before + value.length;
  const ours = valueFault(data, before, end, names);
  const twin = twinFault(data, before, end, names);
  const told = `${where}: ${JSON.stringify(value.toString('latin1'))} with names ${names}: module ${JSON.stringify(ours)}, twin ${JSON.stringify(twin)}`;
  if (ours?.kind !== twin?.kind || ours?.at !== twin?.at) throw new Error(told);
  if (ours !== undefined && (ours.at < 0 || ours.at > value.length)) throw new Error(told);
  const isExpected = isParsedObject(value) && !namesOf(value).some((name) => isReserved(name, names));
  if (isExpected !== (ours === undefined))
    throw new Error(`${told}, JSON.parse ${isExpected ? 'takes it' : 'does not'}`);
  return ours?.kind;
}

function isReserved(name: string, names: ReservedNames): boolean {
  const lower = name.replace(/[A-Z]/g, (letter) => letter.toLowerCase());
  return provenanceNames.some((one, index) => one === lower && (names & (1 << index)) !== 0);
}
