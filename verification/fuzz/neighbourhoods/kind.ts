// Neighbourhoods: batches of a few records, good and bad, through the shipped sink into a real ClickHouse. What is in the
// tables is read for many of them at a time.
import type { PreparingSink } from '../../../src/ports.js';
import type { Finding, Kind, KindOptions } from '../kind.js';
import { Random } from '../random.js';
import { shrinkList } from '../shrink.js';
import {
  faultOf,
  inputOf,
  needsVerdict,
  storedColumns,
  storedRows,
  type Neighbourhood,
  type StoredRow,
} from './judge.js';
import { Probes } from './probes.js';
import { recordsOf, type FuzzRecord } from './records.js';
import { PlainServer } from './server.js';
import { blamesTheNext, ingest, openSink, type Ingested } from './subject.js';
import { tables, type FuzzTable } from './tables.js';

/** Neighbourhoods between two looks at the tables. */
const ROUND = 400;
/** A shortened neighbourhood is made of others, each of which is inserted: not for every finding. */
const MOST_SHORTENED = 12;

/** What is wrong, if anything, and what the pipeline itself said. */
interface Judgement {
  readonly what: string | undefined;
  readonly error: Ingested['error'];
}

interface Waiting {
  readonly one: Neighbourhood;
  readonly done: Promise<Ingested>;
  readonly resolve: (judged: Judgement) => void;
  readonly reject: (error: unknown) => void;
}

export async function openNeighbourhoods({ seed, control, clickhouseUrl, shrink = true }: KindOptions): Promise<Kind> {
  if (clickhouseUrl === undefined) throw new Error('neighbourhoods need a ClickHouse');
  const server = new PlainServer(clickhouseUrl);
  const prefix = `fuzz_${process.pid}_${seed}`;
  const probes = new Probes(server, prefix);
  const nameOf = ({ name }: FuzzTable): string => `${prefix}_${name}`;
  for (const table of tables) {
    const provenance = `_topic LowCardinality(String), _partition UInt32, _offset UInt64${table.more}`;
    await server.run(
      `CREATE OR REPLACE TABLE ${nameOf(table)} (n UInt32, v ${table.type}, ${provenance}) ENGINE = Memory`,
    );
    await probes.createTwin(table);
  }
  const shipped = await openSink(
    clickhouseUrl,
    tables.map((table) => ({ topic: topicOf(table), table: nameOf(table) })),
  );
  const rounds = new Rounds(server, probes, control ? blamesTheNext(shipped) : shipped, nameOf);
  let shortened = 0;
  return {
    concurrency: ROUND,
    run: async (caseNumber) => {
      const one = neighbourhoodOf(new Random(seed, 'neighbourhoods', caseNumber), caseNumber);
      const { what, error } = await rounds.judge(one);
      if (what === undefined) return undefined;
      const finding = { what, input: inputOf(one, error) };
      return !shrink || shortened++ >= MOST_SHORTENED ? finding : shorter(one, finding, rounds);
    },
    close: async () => {
      await shipped.close();
      for (const table of tables)
        await server
          .run(`DROP TABLE IF EXISTS ${nameOf(table)}`)
          .then(() => server.run(`DROP TABLE IF EXISTS ${nameOf(table)}_twin`));
      server.close();
    },
  };
}

function topicOf({ name }: FuzzTable): string {
  return `t.${name}`;
}

function neighbourhoodOf(random: Random, caseNumber: number): Neighbourhood {
  const table = random.pick(tables);
  const records = recordsOf(random, table, caseNumber);
  const cut = random.chance(0.3) ? random.int(records.length) : 0;
  const batches = [records.slice(0, cut), records.slice(cut)].filter((batch) => batch.length > 0);
  return { table, topic: topicOf(table), partition: caseNumber, batches };
}

/** Of partitions that no case has: a shortened neighbourhood is a case of its own. */
let spare = 2_000_000_000;

async function shorter(one: Neighbourhood, finding: Finding, rounds: Rounds): Promise<Finding> {
  const kindOf = (text: string | undefined): string | undefined =>
    text?.replace(/\d+|"(?:[^"\\]|\\.)*"/g, '#').slice(0, 60);
  const rest = (records: readonly FuzzRecord[]): Neighbourhood => ({ ...one, partition: ++spare, batches: [records] });
  const fails = async (records: readonly FuzzRecord[]): Promise<boolean> =>
    kindOf((await rounds.judge(rest(records))).what) === kindOf(finding.what);
  const all = one.batches.flat();
  if (!(await fails(all))) return finding;
  const short = rest(await shrinkList(all, fails));
  const { what = finding.what, error } = await rounds.judge(short);
  return { what, input: inputOf(short, error) };
}

/** Inserts as they come; once none is under way, reads the tables and judges all at once. */
class Rounds {
  readonly #server: PlainServer;
  readonly #probes: Probes;
  readonly #sink: PreparingSink;
  readonly #nameOf: (table: FuzzTable) => string;
  #waiting: Waiting[] = [];
  #underWay = 0;
  #judging: Promise<void> = Promise.resolve();

  constructor(server: PlainServer, probes: Probes, sink: PreparingSink, nameOf: (table: FuzzTable) => string) {
    [this.#server, this.#probes, this.#sink, this.#nameOf] = [server, probes, sink, nameOf];
  }

  judge(one: Neighbourhood): Promise<Judgement> {
    return new Promise((resolve, reject) => void this.#begin(one, resolve, reject));
  }

  async #begin(one: Neighbourhood, resolve: Waiting['resolve'], reject: Waiting['reject']): Promise<void> {
    this.#underWay += 1;
    await this.#judging;
    for (const record of one.batches.flat()) if (needsVerdict(record, one.table)) this.#probes.begin(one.table, record);
    const done = ingest(this.#sink, one.topic, one.partition, one.batches);
    this.#waiting.push({ one, done, resolve, reject });
    await done.catch(() => undefined);
    this.#underWay -= 1;
    if (this.#underWay === 0) this.#judging = this.#judgeAll();
  }

  async #judgeAll(): Promise<void> {
    const all = this.#waiting;
    this.#waiting = [];
    try {
      await this.#probes.settle(tables);
      const concerned = tables.filter((table) => all.some(({ one }) => one.table === table));
      for (const table of concerned) {
        const rows = await this.#take(table);
        const mine = all.filter(({ one }) => one.table === table);
        const partitions = new Set(mine.map(({ one }) => one.partition));
        const foreign = rows.filter((row) => row.topic !== topicOf(table) || !partitions.has(row.partition));
        for (const each of mine) await this.#answer(each, rows, foreign);
      }
      this.#probes.forgetSingles();
    } catch (error) {
      for (const { reject } of all) reject(error);
    }
  }

  async #answer(
    { one, done, resolve }: Waiting,
    rows: readonly StoredRow[],
    foreign: readonly StoredRow[],
  ): Promise<void> {
    const ingested = await done;
    const own = rows.filter(({ partition, topic }) => partition === one.partition && topic === one.topic);
    // Whose row it is that has a stranger's provenance cannot be told: by its number, as a rule.
    const forged = foreign.find(({ n }) => one.batches.flat().some((record) => record.n === n));
    const { error } = ingested;
    if (forged !== undefined)
      return resolve({ what: `a row has a provenance that no record has: ${JSON.stringify(forged)}`, error });
    resolve({ what: faultOf(one, ingested, own, (record) => this.#probes.verdict(one.table, record)), error });
  }

  async #take(table: FuzzTable): Promise<StoredRow[]> {
    const body = await this.#server.run(
      `SELECT ${storedColumns(table)} FROM ${this.#nameOf(table)} FORMAT JSONCompactEachRow`,
    );
    await this.#server.run(`TRUNCATE TABLE ${this.#nameOf(table)}`);
    return storedRows(table, body);
  }
}
