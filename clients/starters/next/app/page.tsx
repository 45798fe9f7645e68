import Link from 'next/link';
import { api } from '../api';

export const dynamic = 'force-static';
export const revalidate = 3600; // in case a webhook was missed

export default async function Articles() {
  const articles = await api.listArticles({ published: true, fields: 'id,slug,title,excerpt' });
  return (
    <main>
      <h1>Articles</h1>
      <ul>
        {articles.map(({ id, slug, title, excerpt }) => (
          <li key={id}><Link href={`/${slug}`}>{title}</Link> {excerpt}</li>
        ))}
      </ul>
    </main>
  );
}
