// The budget follows the memory that the process may use: a small container is not killed for a default.
import { describe, expect, test } from 'vitest';
import { budgetHere, cgroupLimit, defaultBudget } from '../../src/pipeline/memory-budget.js';

const MIB = 1_048_576;
const GIB = 1024 * MIB;

test.each([
  ['a machine with memory enough', undefined, 24 * GIB, 4 * GIB, 256, /memory enough/],
  ['a large container', 8 * GIB, 24 * GIB, 4 * GIB, 256, /memory enough/],
  ['a container of 656 MiB, just enough', 656 * MIB, 24 * GIB, 4 * GIB, 256, /memory enough/],
  ['a container of 512 MiB', 512 * MIB, 24 * GIB, 4 * GIB, 184, /the container has 512 MiB/],
  ['a container of 192 MiB', 192 * MIB, 24 * GIB, 4 * GIB, 24, /the container has 192 MiB/],
  ['a container of 100 MiB', 100 * MIB, 24 * GIB, 4 * GIB, 8, /the container has 100 MiB/],
  ['a small machine', undefined, 256 * MIB, 4 * GIB, 56, /the machine has 256 MiB/],
  ['a limit above the machine', 64 * GIB, 256 * MIB, 4 * GIB, 56, /the machine has 256 MiB/],
  ['a small heap', undefined, 24 * GIB, 100 * MIB, 50, /the heap may have 100 MiB/],
] as const)('G8: %s', (_what, cgroupBytes, machineBytes, heapBytes, budgetMib, why) => {
  const { bytes, why: told } = defaultBudget({ cgroupBytes, machineBytes, heapBytes });
  expect(bytes / MIB).toBe(budgetMib);
  expect(told).toMatch(why);
});

describe('G8: the limit of the control group', () => {
  const limit = (files: Readonly<Record<string, string>>) => cgroupLimit((path) => files[path]);
  test.each([
    [
      'version 2, a container that sees itself as the root',
      { '/proc/self/cgroup': '0::/\n', '/sys/fs/cgroup/memory.max': '201326592\n' },
      201326592,
    ],
    ['version 2, no limit', { '/proc/self/cgroup': '0::/\n', '/sys/fs/cgroup/memory.max': 'max\n' }, undefined],
    [
      'version 2, a service in a slice that is limited',
      {
        '/proc/self/cgroup': '0::/system.slice/kcr.service\n',
        '/sys/fs/cgroup/system.slice/memory.max': '1000\n',
        '/sys/fs/cgroup/system.slice/kcr.service/memory.max': '2000\n',
      },
      1000,
    ],
    [
      'version 2, throttled above memory.high',
      {
        '/proc/self/cgroup': '0::/a\n',
        '/sys/fs/cgroup/a/memory.max': '2000\n',
        '/sys/fs/cgroup/a/memory.high': '1500\n',
      },
      1500,
    ],
    [
      'version 1',
      {
        '/proc/self/cgroup': '11:cpu,cpuacct:/x\n5:memory:/docker/abc\n',
        '/sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes': '201326592\n',
      },
      201326592,
    ],
    [
      'version 1, a container that does not see its own path',
      { '/proc/self/cgroup': '5:memory:/docker/abc\n', '/sys/fs/cgroup/memory/memory.limit_in_bytes': '3000\n' },
      3000,
    ],
    [
      'version 1, no limit',
      { '/proc/self/cgroup': '5:memory:/\n', '/sys/fs/cgroup/memory/memory.limit_in_bytes': '9223372036854771712\n' },
      undefined,
    ],
    [
      'both: version 1 limits memory',
      { '/proc/self/cgroup': '5:memory:/a\n0::/a\n', '/sys/fs/cgroup/memory/a/memory.limit_in_bytes': '3000\n' },
      3000,
    ],
    ['no Linux', {}, undefined],
    [
      'a file that holds nonsense',
      { '/proc/self/cgroup': 'nonsense\n', '/sys/fs/cgroup/memory.max': 'x\n' },
      undefined,
    ],
  ] as const)('%s', (_what, files, expected) => {
    expect(limit(files)).toBe(expected);
  });
});

test('what is configured is taken, whatever the memory', () => {
  expect(budgetHere(5)).toMatchObject({ bytes: 5 });
  expect(budgetHere(undefined).bytes).toBeGreaterThanOrEqual(8 * MIB);
});
