//! The few pieces that screens are painted from. They hold no state and decide nothing: text, tables, boxes, forms.

pub(crate) mod form;
pub(crate) mod panel;
pub(crate) mod table;
pub(crate) mod text;
