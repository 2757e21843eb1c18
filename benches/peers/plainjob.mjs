// plainjob on better-sqlite3 in this process, with SQLite synchronous=FULL: each job is added, taken and marked as
// done. Prints jobs a second. With a batch, jobs are added by `addMany`, its only call for several.
//
// node plainjob.mjs PEERS_FOLDER NEW_DATABASE JOBS BATCH

import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [peers, file, jobs, batch] = process.argv.slice(2);
const modules = `${peers}/node_modules/`;
const Database = createRequire(pathToFileURL(modules))("better-sqlite3");
const { better, defineQueue } = await import(pathToFileURL(`${modules}plainjob/dist/plainjob.js`));

const quiet = () => {};
const logger = { error: quiet, warn: quiet, info: quiet, debug: quiet };
const connection = better(new Database(file));
const queue = defineQueue({ connection, logger });
// After defineQueue, which sets it to NORMAL.
connection.pragma("synchronous = FULL");

const began = process.hrtime.bigint();
for (let left = Number(jobs); left > 0; left -= Number(batch)) {
  const count = Math.min(left, Number(batch));
  if (count === 1) queue.add("job", "true");
  else queue.addMany("job", Array(count).fill("true"));
  for (let n = 0; n < count; n++) queue.markJobAsDone(queue.getAndMarkJobAsProcessing("job").id);
}
const seconds = Number(process.hrtime.bigint() - began) / 1e9;
console.log(Number(jobs) / seconds);
queue.close();
