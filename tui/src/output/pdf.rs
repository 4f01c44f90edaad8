//! Pages of plain lines for paper: A4, landscape, one of the fonts that every reader has. Called by `output/audit`.

use pdf_writer::{Content, Name, Pdf, Rect, Ref, Str};

/// A4, landscape, in points.
const WIDTH: f32 = 842.0;
const HEIGHT: f32 = 595.0;
const MARGIN: f32 = 36.0;
const FONT_SIZE: f32 = 8.0;
const LEADING: f32 = 10.0;
/// Courier is 0.6 em wide: (842 − 2 · 36) / (0.6 · 8) characters fit.
const COLUMNS: usize = 160;
/// (595 − 2 · 36) / 10 lines fit, with the title and a space below it.
const ROWS: usize = 50;
const FONT: Name<'static> = Name(b"F1");

/// Lines on their way to paper.
#[derive(Debug)]
pub(super) struct Pages {
    title: String,
    lines: Vec<Vec<u8>>,
}

impl Pages {
    pub(super) fn new(title: &str) -> Self {
        Self { title: title.to_owned(), lines: Vec::new() }
    }

    /// Adds a line; what is too long goes on below.
    pub(super) fn line(&mut self, text: &str) {
        // The font knows Latin letters; the export as jsonl has every sign.
        let bytes: Vec<u8> =
            text.chars().map(|sign| u8::try_from(sign).ok().filter(u8::is_ascii).unwrap_or(b'?')).collect();
        self.lines.extend(bytes.chunks(COLUMNS).map(<[u8]>::to_vec));
    }

    /// Returns the file.
    pub(super) fn finish(self) -> Vec<u8> {
        let mut pdf = Pdf::new();
        let (catalog, tree, font) = (Ref::new(1), Ref::new(2), Ref::new(3));
        let sheets: Vec<&[Vec<u8>]> = if self.lines.is_empty() { vec![&[]] } else { self.lines.chunks(ROWS).collect() };
        let total = sheets.len();
        let ids: Vec<(Ref, Ref)> = (0..total)
            .filter_map(|page| i32::try_from(page).ok())
            .map(|page| (Ref::new(4 + 2 * page), Ref::new(5 + 2 * page)))
            .collect();
        pdf.catalog(catalog).pages(tree);
        pdf.pages(tree).kids(ids.iter().map(|(page, _)| *page)).count(i32::try_from(total).unwrap_or(i32::MAX));
        pdf.type1_font(font).base_font(Name(b"Courier"));
        for ((number, sheet), (page, content)) in (1..).zip(sheets).zip(ids) {
            {
                // Dropping the writer ends the dictionary.
                let mut writer = pdf.page(page);
                writer.parent(tree).media_box(Rect::new(0.0, 0.0, WIDTH, HEIGHT)).contents(content);
                writer.resources().fonts().pair(FONT, font);
            }
            pdf.stream(content, &self.text(sheet, number, total));
        }
        pdf.finish()
    }

    fn text(&self, sheet: &[Vec<u8>], number: usize, total: usize) -> Vec<u8> {
        let mut content = Content::new();
        content.begin_text().set_font(FONT, FONT_SIZE).set_leading(LEADING);
        content.next_line(MARGIN, HEIGHT - MARGIN);
        content.show(Str(format!("{}, page {number} of {total}", self.title).as_bytes()));
        content.next_line_using_leading();
        for line in sheet {
            content.next_line_using_leading();
            content.show(Str(line));
        }
        content.end_text();
        content.finish().to_vec()
    }
}
