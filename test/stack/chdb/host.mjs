// Becomes a ClickHouse server: runs clickhouse-local's main out of libchdb.so, inside this very process.
// Usage: node host.mjs <path of libchdb.so> <argument of clickhouse-local>...
import koffi from 'koffi';

const [libraryPath, ...args] = process.argv.slice(2);
const RTLD_NOW = 2;
const POINTER_BYTES = 8;

const libc = koffi.load('libc.so.6');
const dlopen = libc.func('void *dlopen(const char *path, int flags)');
const dlsym = libc.func('void *dlsym(void *handle, const char *name)');
const dlerror = libc.func('const char *dlerror()');
const calloc = libc.func('void *calloc(size_t count, size_t size)');
const strdup = libc.func('void *strdup(const char *text)');
const onExit = libc.func('int on_exit(void *handler, void *argument)');

const library = dlopen(libraryPath, RTLD_NOW);
if (library === null) throw new Error(`libchdb cannot be loaded: ${dlerror()}`);
const main = dlsym(library, 'chdb_query_cmdline');
if (main === null) throw new Error(`libchdb has no chdb_query_cmdline: ${dlerror()}`);

// What clickhouse-local lacks: see grafts.ts.
for (const graft of (process.env['CHDB_GRAFTS'] ?? '').split(':').filter(Boolean)) {
  const refused = koffi.load(graft).func('int graft(void *library)')(library);
  if (refused !== 0) throw new Error(`${graft} does not know this build of libchdb.so: ${refused}`);
}

// The strings must outlive the JavaScript heap, so libc allocates them.
const argv = ['clickhouse-local', ...args];
const argvPointer = calloc(argv.length + 1, POINTER_BYTES);
argv.forEach((arg, index) => koffi.encode(argvPointer, index * POINTER_BYTES, 'void *', strdup(arg)));

// Called by koffi directly, ClickHouse would take koffi's own stack for a nearly overrun one. libc's exit
// handlers run on the process's real stack, and get (exit status, argument), which is just (argc, argv).
onExit(main, argvPointer);
process.reallyExit(argv.length);
