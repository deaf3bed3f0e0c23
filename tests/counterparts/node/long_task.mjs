// A long task under `cortex exec`: an unmodified AWS SDK for JavaScript v3 that works on, whatever becomes of its first
// credential; the twin of python/long_task.py, which says how it goes on.
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { setTimeout } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { PutObjectCommand, S3Client } from '@aws-sdk/client-s3';

const DEADLINE_MS = 240_000;
const PAUSE_MS = 300;

const text = { type: 'string' };
const { values: options } = parseArgs({
  options: { endpoint: text, bucket: text, key: text, renewals: { ...text, default: '2' } },
});
const renewals = Number(options.renewals);
const say = (line) => console.log(JSON.stringify(line));

// No credentials are named: the SDK's own default chain finds what `cortex exec` put into the environment.
const s3 = new S3Client({ endpoint: options.endpoint, forcePathStyle: true, maxAttempts: 1 });

async function use() {
  await s3.send(new PutObjectCommand({ Bucket: options.bucket, Key: options.key, Body: '42' }));
  const { accessKeyId } = await s3.config.credentials();
  return createHash('sha256').update(accessKeyId).digest('hex').slice(0, 16);
}

const used = new Set();
const giveUp = Date.now() + DEADLINE_MS;
let wanted = renewals + 1;
while (used.size < wanted) {
  if (Date.now() > giveUp) throw new Error(`only ${used.size} credentials in ${DEADLINE_MS} ms`);
  try {
    const name = await use();
    if (!used.has(name)) {
      used.add(name);
      say({ used: name });
      if (used.size === renewals + 1) {
        process.stdin.resume();
        await once(process.stdin, 'data');
        wanted = renewals + 2;
      }
    }
  } catch (error) {
    say({ failed: `${error.name}: ${error.message}`.slice(0, 500) });
  }
  await setTimeout(PAUSE_MS);
}
process.exit(0);
