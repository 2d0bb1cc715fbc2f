// What is mutated, and by which tests it should be noticed: a mutant is run against the tests of its own room.

export interface Room {
  /** Globs of the files that are mutated. */
  readonly mutate: readonly string[];
  /** Globs of the test files. */
  readonly tests: readonly string[];
  /** What the score must be at least, percent, equivalents left out. */
  readonly leastScore: number;
}

const operatorTests = ['test/operators/**/*.test.ts', 'test/pipeline/**/*.test.ts'];

export const rooms = {
  model: { mutate: ['src/model/**/*.ts'], tests: ['test/model/**/*.test.ts'], leastScore: 90 },
  operators: { mutate: ['operators/**/*.ts'], tests: operatorTests, leastScore: 90 },
  ledger: {
    mutate: ['src/ledger.ts', 'src/ledger/**/*.ts'],
    tests: ['test/ledger*.test.ts', 'test/ledger/**/*.test.ts', 'test/operators/**/*.test.ts'],
    leastScore: 90,
  },
  insert: {
    mutate: ['src/clickhouse/insert/**/*.ts', 'src/clickhouse/client/**/*.ts'],
    tests: ['test/clickhouse/**/*.test.ts'],
    leastScore: 80,
  },
  kafka: {
    mutate: ['src/kafka/**/*.ts'],
    // What speaks to brokers is run by the simulated ones.
    tests: ['test/kafka/**/*.test.ts', 'verification/simulation/kafka/kafka.test.ts'],
    leastScore: 80,
  },
} as const satisfies Record<string, Room>;

export type RoomName = keyof typeof rooms;

export const isRoom = (name: string): name is RoomName => Object.hasOwn(rooms, name);
