// A control group with a limit of memory, where this machine lets one be made: version 2, or version 1.
import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

export interface MemoryGroup {
  /** For a shell: what moves it, and what it becomes, into the group. */
  readonly enter: string;
  /** Most that was used at a time, bytes, page cache included; undefined: the kernel does not tell. */
  peakBytes(): number | undefined;
  /** Processes that the kernel killed for memory. */
  kills(): number;
  /** With whatever is still in it. */
  remove(): Promise<void>;
}

const places = [
  {
    root: '/sys/fs/cgroup',
    sign: 'cgroup.controllers',
    limit: 'memory.max',
    swap: 'memory.swap.max',
    noSwap: () => '0',
    peak: 'memory.peak',
    events: 'memory.events',
  },
  {
    root: '/sys/fs/cgroup/memory',
    sign: 'memory.limit_in_bytes',
    limit: 'memory.limit_in_bytes',
    swap: 'memory.memsw.limit_in_bytes',
    noSwap: (bytes: number) => String(bytes),
    peak: 'memory.max_usage_in_bytes',
    events: 'memory.oom_control',
  },
] as const;

/** Undefined where none can be made; then the kernel does not let this user. */
export function memoryGroup(name: string, limitBytes: number): MemoryGroup | undefined {
  const place = places.find(({ root, sign }) => existsSync(`${root}/${sign}`));
  if (place === undefined) return undefined;
  const dir = `${place.root}/${name}`;
  const read = (file: string): string => (existsSync(`${dir}/${file}`) ? readFileSync(`${dir}/${file}`, 'utf8') : '');
  try {
    mkdirSync(dir);
    writeFileSync(`${dir}/${place.limit}`, String(limitBytes));
  } catch {
    return undefined;
  }
  // Where there is no swap there is no such file.
  if (existsSync(`${dir}/${place.swap}`)) writeFileSync(`${dir}/${place.swap}`, place.noSwap(limitBytes));
  return {
    enter: `echo $$ > ${dir}/cgroup.procs`,
    peakBytes: () => Number(read(place.peak)) || undefined,
    kills: () => Number(/oom_kill (\d+)/.exec(read(place.events))?.[1] ?? 0),
    remove: async () => {
      for (const pid of read('cgroup.procs').split('\n').filter(Boolean)) process.kill(Number(pid), 'SIGKILL');
      // What was killed leaves the group a moment later.
      for (let attempt = 0; attempt < 100 && read('cgroup.procs') !== ''; attempt++) await sleep(50);
      rmdirSync(dir);
    },
  };
}
