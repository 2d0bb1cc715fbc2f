// npm run build: the page goes into the package as it is.
import { cpSync } from 'node:fs';

cpSync('src/observe/page.html', 'dist/src/observe/page.html');
