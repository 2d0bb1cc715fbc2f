import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';
import { BaseSequencer, type TestSpecification } from 'vitest/node';

const here = (path: string) => fileURLToPath(new URL(path, import.meta.url));

/** The public entries, as they are in the sources. */
export const alias = {
  'kafka-clickhouse-rx/testing': here('./src/testing/index.ts'),
  'kafka-clickhouse-rx/operators': here('./operators/index.ts'),
  'kafka-clickhouse-rx': here('./src/index.ts'),
};

/** `unit` needs no server; neither does `long`, which `npm run test:quick` leaves out. `servers` starts one stack for all its files. */
const long = ['verification/**/*.long.test.ts'];
const servers = ['test/stack/**/*.test.ts', '{test,verification}/**/*.servers.test.ts'];

/** Minutes each, the longest first: one that began last would be waited for alone. */
const longest = [
  'verification/chaos/chaos',
  'test/cli/silent',
  'test/pipeline/zombies',
  'test/cli/state',
  'test/cli/unread-log',
  'test/cli/small-memory',
  'test/cli/run',
  'test/tools/verify',
  'test/clickhouse/every-setting',
].map((name) => here(`./${name}.servers.test.ts`));

class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const place = ({ moduleId }: TestSpecification) =>
      (longest.indexOf(moduleId) + longest.length + 1) % (longest.length + 1);
    return (await super.sort(files)).sort((a, b) => place(a) - place(b));
  }
}

export default defineConfig({
  resolve: { alias },
  test: {
    sequence: { sequencer: LongestFirst },
    projects: [
      {
        extends: true,
        test: {
          name: 'unit',
          include: ['{test,verification}/**/*.test.ts', 'examples/**/*.test.ts'],
          exclude: [...servers, ...long],
          // A process runs many files, and loads what they share once: half of the processor time.
          isolate: false,
          // One more than the cores of a small machine: some files wait for timers.
          maxWorkers: 3,
          testTimeout: 30_000,
          sequence: { groupOrder: 0 },
        },
      },
      {
        extends: true,
        test: {
          name: 'long',
          include: long,
          maxWorkers: 2,
          testTimeout: 30_000,
          sequence: { groupOrder: 1 },
        },
      },
      {
        extends: true,
        test: {
          name: 'servers',
          include: servers,
          globalSetup: ['test/stack/global-setup.ts'],
          maxWorkers: 3,
          sequence: { groupOrder: 2 },
          testTimeout: 300_000,
          hookTimeout: 300_000,
        },
      },
    ],
  },
});
