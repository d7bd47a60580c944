import { PasswordInput } from '@mantine/core';
import { useState } from 'react';
import { useTranslation } from 'react-i18next';
import { useConnection } from '../../api/context';
import { ActionDialog } from '../../parts/ActionDialog';
import { said } from '../../parts/useRun';

const LEAST = 12;

/** Replaces the user's own password. */
export function PasswordDialog({ onClose }: { onClose: () => void }) {
  const { t } = useTranslation();
  const connection = useConnection();
  const [old, setOld] = useState('');
  const [fresh, setFresh] = useState('');
  const [again, setAgain] = useState('');
  const differs = again !== '' && again !== fresh;
  return (
    <ActionDialog
      title={t('password.title')}
      onClose={onClose}
      confirm={t('password.change')}
      ready={old !== '' && fresh.length >= LEAST && fresh === again}
      onConfirm={async () => {
        await connection.call('/password', { method: 'POST', body: { old, new: fresh } });
        said(t('password.done'));
      }}
    >
      <PasswordInput
        label={t('password.old')}
        value={old}
        onChange={(e) => setOld(e.currentTarget.value)}
        autoComplete="current-password"
        data-autofocus
      />
      <PasswordInput
        label={t('password.new')}
        description={t('password.rule', { least: LEAST })}
        value={fresh}
        onChange={(e) => setFresh(e.currentTarget.value)}
        autoComplete="new-password"
      />
      <PasswordInput
        label={t('password.again')}
        value={again}
        onChange={(e) => setAgain(e.currentTarget.value)}
        error={differs ? t('password.differs') : undefined}
        autoComplete="new-password"
      />
    </ActionDialog>
  );
}
