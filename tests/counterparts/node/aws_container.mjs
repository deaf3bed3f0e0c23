// An unmodified AWS SDK for JavaScript v3 that gets its credentials from Cortex; the twin of python/aws_container.py,
// because the two SDKs speak the container protocol differently (retries, timeouts, error bodies).
import { parseArgs } from 'node:util';
import { GetObjectCommand, PutObjectCommand, S3Client } from '@aws-sdk/client-s3';
import { GetCallerIdentityCommand, STSClient } from '@aws-sdk/client-sts';
import { fromHttp } from '@aws-sdk/credential-provider-http';

const text = { type: 'string' };
const { values: options } = parseArgs({
  options: {
    region: { ...text, default: 'eu-west-1' },
    'sts-endpoint': text,
    's3-endpoint': text,
    bucket: text,
    key: text,
    body: { ...text, default: 'written by the AWS SDK for JavaScript' },
    'read-key': text,
    'denied-key': text,
  },
});

async function refusal(s3, put) {
  try {
    await s3.send(new PutObjectCommand(put));
  } catch (error) {
    return error.Code ?? error.name;
  }
  throw new Error(`${put.Key} was written`);
}

async function act() {
  const credentials = fromHttp();
  const common = { region: options.region, credentials, maxAttempts: 2 };
  const answer = {};
  if (options['sts-endpoint']) {
    const sts = new STSClient({ ...common, endpoint: options['sts-endpoint'] });
    const identity = await sts.send(new GetCallerIdentityCommand({}));
    Object.assign(answer, { account: identity.Account, arn: identity.Arn, user_id: identity.UserId });
  }
  if (options['s3-endpoint']) {
    const s3 = new S3Client({ ...common, endpoint: options['s3-endpoint'], forcePathStyle: true });
    const Bucket = options.bucket;
    if (options.key) await s3.send(new PutObjectCommand({ Bucket, Key: options.key, Body: options.body }));
    if (options['read-key']) {
      const object = await s3.send(new GetObjectCommand({ Bucket, Key: options['read-key'] }));
      answer.read = await object.Body.transformToString();
    }
    if (options['denied-key']) {
      answer.denied = await refusal(s3, { Bucket, Key: options['denied-key'], Body: 'not allowed' });
    }
  }
  return { ...answer, access_key_id: (await credentials()).accessKeyId };
}

try {
  console.log(JSON.stringify(await act()));
} catch (error) {
  console.error(error);
  // What a container endpoint answered is in `Message`.
  console.log(JSON.stringify({ error: error.name, message: error.Message ?? error.message }));
  process.exitCode = 1;
}
