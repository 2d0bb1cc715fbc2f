import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';

const here = (path: string) => fileURLToPath(new URL(path, import.meta.url));

/** `unit` needs no server; `servers` starts one stack for all its files. */
const servers = ['test/stack/**/*.test.ts', '{test,verification}/**/*.servers.test.ts'];

export default defineConfig({
  resolve: {
    alias: {
      'kafka-clickhouse-rx/testing': here('./src/testing/index.ts'),
      'kafka-clickhouse-rx/operators': here('./operators/index.ts'),
      'kafka-clickhouse-rx': here('./src/index.ts'),
    },
  },
  test: {
    projects: [
      {
        extends: true,
        test: {
          name: 'unit',
          include: ['{test,verification}/**/*.test.ts', 'examples/**/*.test.ts'],
          exclude: servers,
          maxWorkers: 2,
          testTimeout: 30_000,
          sequence: { groupOrder: 0 },
        },
      },
      {
        extends: true,
        test: {
          name: 'servers',
          include: servers,
          globalSetup: ['test/stack/global-setup.ts'],
          maxWorkers: 2,
          sequence: { groupOrder: 1 },
          testTimeout: 300_000,
          hookTimeout: 300_000,
        },
      },
    ],
  },
});
