import { Button, PasswordInput, TextInput } from '@mantine/core';
import { useState } from 'react';
import { useTranslation } from 'react-i18next';
import { useConnection } from '../../api/context';
import { useMeta } from '../../api/queries';
import type { LoginResult } from '../../api/types';
import { Problem } from '../../parts/Problem';
import classes from './Login.module.css';

/** Asks for a name and a password, and starts a session. */
export function Login({ onDone }: { onDone: () => void }) {
  const { t } = useTranslation();
  const connection = useConnection();
  const meta = useMeta();
  const [user, setUser] = useState('');
  const [password, setPassword] = useState('');
  const [error, setError] = useState<unknown>();
  const [busy, setBusy] = useState(false);

  const submit = async () => {
    setBusy(true);
    setError(undefined);
    try {
      const result = await connection.call<LoginResult>('/login', {
        method: 'POST',
        body: { user, password },
      });
      connection.setToken(result.token);
      onDone();
    } catch (err) {
      setPassword('');
      setError(err);
    } finally {
      setBusy(false);
    }
  };

  return (
    <main className={classes.page}>
      <form
        className={classes.card}
        onSubmit={(e) => {
          e.preventDefault();
          void submit();
        }}
      >
        <header className={classes.head}>
          <img src="./icon.svg" alt="" width={44} height={44} />
          <div>
            <h1>Drystone</h1>
            <p>
              {meta.data
                ? t('login.at', { cluster: meta.data.cluster_name, node: meta.data.node_name })
                : ' '}
            </p>
          </div>
        </header>
        {meta.error && !error && <Problem error={meta.error} retry={() => void meta.refetch()} />}
        {error !== undefined && <Problem error={error} />}
        <TextInput
          label={t('login.user')}
          name="user"
          value={user}
          onChange={(e) => setUser(e.currentTarget.value)}
          autoComplete="username"
          autoFocus
          required
          withAsterisk={false}
        />
        <PasswordInput
          label={t('login.password')}
          name="password"
          value={password}
          onChange={(e) => setPassword(e.currentTarget.value)}
          autoComplete="current-password"
          required
          withAsterisk={false}
        />
        <Button type="submit" loading={busy} fullWidth>
          {t('login.submit')}
        </Button>
      </form>
    </main>
  );
}
