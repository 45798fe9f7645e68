import Link from 'next/link';
import { notFound } from 'next/navigation';
import { isError } from 'pressroom-client';
import { api } from '../../api';

export const dynamic = 'force-static';
export const revalidate = 3600;

export async function generateStaticParams() {
  const articles = await api.listArticles({ published: true, fields: 'slug', limit: 20 });
  return articles.map(({ slug }) => ({ slug })); // others are rendered at their first request
}

export default async function Article({ params }: { params: Promise<{ slug: string }> }) {
  const article = await api.readArticleBySlug(await params).catch((error: unknown) => {
    if (isError(error, 'article_not_found')) notFound();
    throw error;
  });
  return (
    <main>
      <Link href="/">Articles</Link>
      <h1>{article.title}</h1>
      <p>{article.author.name}</p>
      {/* The API has sanitized this HTML. */}
      <article dangerouslySetInnerHTML={{ __html: article.html }} />
    </main>
  );
}
